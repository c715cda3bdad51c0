#include "select/key_statistics.h"

#include <algorithm>

namespace tinyserve {
namespace {

constexpr int64_t kBlock = 256;  // rows summed in F32 before they go to F64

// to += x^T x over the upper triangle. x: [rows, d], row stride `stride`.
void add_square(const float* x, int64_t stride, int64_t rows, int32_t d, std::vector<float>& square, std::vector<double>& to) {
  for (int64_t begin = 0; begin < rows; begin += kBlock) {
    square.assign(size_t(d) * d, 0.0f);
    for (int64_t r = begin; r < std::min(rows, begin + kBlock); ++r) {
      const float* row = x + r * stride;
      for (int32_t i = 0; i < d; ++i) {
        float* line = square.data() + int64_t{i} * d;
        const float xi = row[i];
        for (int32_t j = i; j < d; ++j) line[j] += xi * row[j];
      }
    }
    for (int64_t i = 0; i < int64_t{d} * d; ++i) to[i] += square[i];
  }
}

}  // namespace

KeyStatistics::KeyStatistics(int32_t num_layers, int32_t num_heads, int32_t kv_heads, int32_t head_dim)
    : num_layers_(num_layers), num_heads_(num_heads), kv_heads_(kv_heads), head_dim_(head_dim), heads_(size_t(num_layers) * kv_heads) {
  const size_t d = head_dim;
  for (HeadStatistics& h : heads_) {
    h.key_sum.assign(d, 0);
    h.key_square.assign(d * d, 0);
    h.query_square.assign(d * d, 0);
  }
}

void KeyStatistics::add(int32_t layer, const float* qkv, int64_t qkv_stride, int64_t rows) {
  if (rows == 0) return;
  const int32_t group = num_heads_ / kv_heads_;
  for (int32_t h = 0; h < kv_heads_; ++h) {
    HeadStatistics& to = heads_[size_t(layer) * kv_heads_ + h];
    for (int32_t g = 0; g < group; ++g)
      add_square(qkv + int64_t{h * group + g} * head_dim_, qkv_stride, rows, head_dim_, square_, to.query_square);
    to.queries += rows * group;
    add_keys(to, qkv + int64_t{num_heads_ + h} * head_dim_, qkv_stride, rows);
  }
}

void KeyStatistics::add_keys(HeadStatistics& to, const float* k, int64_t stride, int64_t rows) {
  const int32_t d = head_dim_;
  if (to.shift.empty()) {
    to.shift.assign(d, 0);
    for (int64_t r = 0; r < rows; ++r)
      for (int32_t i = 0; i < d; ++i) to.shift[i] += k[r * stride + i] / static_cast<double>(rows);
  }
  centred_.resize(size_t(rows) * d);
  for (int64_t r = 0; r < rows; ++r) {
    float* row = centred_.data() + r * d;
    for (int32_t i = 0; i < d; ++i) to.key_sum[i] += row[i] = static_cast<float>(k[r * stride + i] - to.shift[i]);
    if ((to.keys + r) % to.sample_stride != 0) continue;
    to.sample.insert(to.sample.end(), k + r * stride, k + r * stride + d);
    if (static_cast<int64_t>(to.sample.size()) < 2 * HeadStatistics::kSample * d) continue;
    for (int64_t s = 0; s < HeadStatistics::kSample; ++s)  // every second one stays
      std::copy_n(to.sample.begin() + 2 * s * d, d, to.sample.begin() + s * d);
    to.sample.resize(size_t(HeadStatistics::kSample) * d);
    to.sample_stride *= 2;
  }
  add_square(centred_.data(), d, rows, d, square_, to.key_square);
  to.keys += rows;
}

}  // namespace tinyserve
