#include "select/dense_check.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace tinyserve {
namespace {

double element(const std::byte* side, DType dtype, int64_t i) {
  return dtype == DType::kF32 ? reinterpret_cast<const float*>(side)[i]
                              : to_float(reinterpret_cast<const BFloat16*>(side)[i]);
}

}  // namespace

DenseCheck check_densely(const ops::AttentionArgs& a, const ops::BatchLayout& batch, const ops::SparseRow& row,
                         int32_t head, std::span<const ops::SparseRead> reads, std::span<const float> log_sums) {
  const ops::KvLayer& c = a.cache;
  const int32_t d = c.head_dim, group = a.num_heads / c.kv_heads, tokens = row.position + 1;
  const int32_t* table = batch.page_table + int64_t{row.seq} * batch.page_table_stride;
  const auto at = [&](int32_t t) {
    return ((int64_t{table[t / c.page_size]} * c.kv_heads + head) * c.page_size + t % c.page_size) * d;
  };
  std::vector<double> logits(static_cast<size_t>(tokens)), dense(static_cast<size_t>(d));
  DenseCheck check;
  double wrong = 0, size = 0;
  for (int32_t g = 0; g < group; ++g) {
    const int64_t h = int64_t{head} * group + g;
    const float* q = a.q + row.row * a.q_stride + h * d;
    double most = -INFINITY, total = 0;
    for (int32_t t = 0; t < tokens; ++t) {
      double x = 0;
      for (int32_t i = 0; i < d; ++i) x += double{q[i]} * element(c.k, c.dtype, at(t) + i);
      most = std::max(most, logits[static_cast<size_t>(t)] = x * a.scale);
    }
    std::fill(dense.begin(), dense.end(), 0.0);
    const double own = log_sums[static_cast<size_t>(h)];
    for (int32_t t = 0; t < tokens; ++t) {
      const double x = logits[static_cast<size_t>(t)], weight = std::exp(x - most);
      total += weight;
      for (int32_t i = 0; i < d; ++i) dense[static_cast<size_t>(i)] += weight * element(c.v, c.dtype, at(t) + i);
      const ops::SparseRead read = reads[static_cast<size_t>(t)];
      if (read == ops::SparseRead::kEstimated) check.true_estimated += std::exp(x - own) / group;
      if (read == ops::SparseRead::kCoded) check.true_coded += std::exp(x - own) / group;
    }
    const float* out = a.out + row.row * a.out_stride + h * d;
    for (int32_t i = 0; i < d; ++i) {
      const double right = dense[static_cast<size_t>(i)] / total;
      wrong += (out[i] - right) * (out[i] - right), size += right * right;
    }
  }
  check.output_error = size > 0 ? std::sqrt(wrong / size) : 0;
  return check;
}

}  // namespace tinyserve
