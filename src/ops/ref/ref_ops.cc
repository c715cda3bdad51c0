#include "ops/ref/ref_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "ops/int8_format.h"
#include "ops/ref/ref_selection.h"

namespace tinyserve::ops {
namespace {

struct RefWeight : PackedWeight {
  std::vector<float> values;  // [out_features, in_features], already rounded to the format
};

// Rounds each group of inputs of a row to what the INT8 format keeps.
void round_to_int8(float* row, int64_t n) {
  for (int64_t g = 0; g < n; g += kInt8Group) {
    const int64_t end = std::min(n, g + kInt8Group);
    const float scale = to_float(int8_scale(row + g, end - g));
    for (int64_t i = g; i < end; ++i) row[i] = static_cast<float>(int8_code(row[i], scale)) * scale;
  }
}

float activate(Activation act, float x) {
  switch (act) {
    case Activation::kSilu: return x / (1.0f + std::exp(-x));
    case Activation::kGelu: return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case Activation::kGeluTanh: return 0.5f * x * (1.0f + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case Activation::kRelu: return std::max(x, 0.0f);
  }
  TS_CHECK(false, "unknown activation");
}

float load(const std::byte* p, DType dtype, int64_t i) {
  if (dtype == DType::kF32) return reinterpret_cast<const float*>(p)[i];
  return to_float(reinterpret_cast<const BFloat16*>(p)[i]);
}

void store(std::byte* p, DType dtype, int64_t i, float value) {
  if (dtype == DType::kF32) reinterpret_cast<float*>(p)[i] = value;
  else reinterpret_cast<BFloat16*>(p)[i] = to_bfloat16(value);
}

class RefOps : public Ops {
 public:
  std::string_view name() const override { return "ref"; }
  std::string description() const override { return "plain loops, 1 thread"; }
  void reserve(const Limits&) override {}

  std::unique_ptr<PackedWeight> pack_weight(std::span<const WeightSource> parts, WeightFormat format) override {
    auto packed = std::make_unique<RefWeight>();
    packed->format = format;
    for (const WeightSource& part : parts) {
      const int64_t out = part.view.shape[part.transposed ? 1 : 0], in = part.view.shape[part.transposed ? 0 : 1];
      const size_t base = packed->values.size();
      packed->values.resize(base + static_cast<size_t>(out * in));
      std::vector<float> raw(static_cast<size_t>(out * in));
      part.view.read(0, out * in, raw.data());
      for (int64_t o = 0; o < out; ++o)
        for (int64_t i = 0; i < in; ++i) packed->values[base + o * in + i] = raw[part.transposed ? i * out + o : o * in + i];
      packed->out_features += out;
      packed->in_features = in;
    }
    if (format == WeightFormat::kBF16)
      for (float& v : packed->values) v = to_float(to_bfloat16(v));
    if (format == WeightFormat::kInt8)
      for (int64_t o = 0; o < packed->out_features; ++o)
        round_to_int8(packed->values.data() + o * packed->in_features, packed->in_features);
    packed->size_bytes = packed->values.size() * sizeof(float);
    return packed;
  }

  void embed(const TensorView& table, std::span<const int32_t> ids, float scale, bool accumulate, float* out,
             int64_t out_stride) override {
    const int64_t width = table.shape[1];
    std::vector<float> row(width);
    for (size_t t = 0; t < ids.size(); ++t) {
      table.read(ids[t] * width, width, row.data());
      float* o = out + static_cast<int64_t>(t) * out_stride;
      for (int64_t i = 0; i < width; ++i) o[i] = (accumulate ? o[i] : 0.0f) + scale * row[i];
    }
  }

  void rms_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, float eps, float* out,
                int64_t out_stride) override {
    for (int64_t r = 0; r < rows; ++r) {
      const float* in = x + r * x_stride;
      double sum = 0;
      for (int64_t i = 0; i < width; ++i) sum += double{in[i]} * in[i];
      const float inverse = static_cast<float>(1.0 / std::sqrt(sum / width + eps));
      for (int64_t i = 0; i < width; ++i) out[r * out_stride + i] = in[i] * inverse * weight[i];
    }
  }

  void layer_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, const float* bias,
                  float eps, float* out, int64_t out_stride) override {
    for (int64_t r = 0; r < rows; ++r) {
      const float* in = x + r * x_stride;
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < width; ++i) sum += in[i];
      const double mean = sum / width;
      for (int64_t i = 0; i < width; ++i) squares += (in[i] - mean) * (in[i] - mean);
      const double inverse = 1.0 / std::sqrt(squares / width + eps);
      for (int64_t i = 0; i < width; ++i)
        out[r * out_stride + i] = static_cast<float>((in[i] - mean) * inverse) * weight[i] + (bias ? bias[i] : 0.0f);
    }
  }

  void linear(const LinearArgs& a) override {
    const auto& w = static_cast<const RefWeight&>(*a.weight);
    for (int64_t r = 0; r < a.rows; ++r)
      for (int64_t o = 0; o < w.out_features; ++o) {
        double sum = a.bias ? a.bias[o] : 0.0;
        const float *x = a.x + r * a.x_stride, *row = w.values.data() + o * w.in_features;
        for (int64_t i = 0; i < w.in_features; ++i) sum += double{x[i]} * row[i];
        float& y = a.y[r * a.y_stride + o];
        y = (a.accumulate ? y : 0.0f) + static_cast<float>(sum);
      }
  }

  void append_kv(const AppendArgs& a, const BatchLayout& batch) override {
    const int32_t d = a.cache.head_dim, kv_heads = a.cache.kv_heads, page = a.cache.page_size;
    for (int32_t t = 0; t < batch.num_tokens; ++t) {
      float* row = a.qkv + t * a.qkv_stride;
      for (int32_t h = 0; h < a.num_heads + kv_heads; ++h) {
        float* x = row + h * d;
        const float* norm = h < a.num_heads ? a.q_norm : a.k_norm;
        if (norm) rms_norm(x, d, 1, d, norm, a.norm_eps, x, d);
        if (!a.cos) continue;
        const int32_t half = a.rotary_dim / 2;
        const float *c = a.cos + int64_t{t} * half, *s = a.sin + int64_t{t} * half;
        for (int32_t i = 0; i < half; ++i) {
          const float first = x[i], second = x[i + half];
          x[i] = first * c[i] - second * s[i];
          x[i + half] = second * c[i] + first * s[i];
        }
      }
      const int64_t number = batch.slots[t] / page, offset = batch.slots[t] % page;
      for (int32_t h = 0; h < kv_heads; ++h)
        for (int32_t i = 0; i < d; ++i) {
          const int64_t to = ((number * kv_heads + h) * page + offset) * d + i;
          store(a.cache.k, a.cache.dtype, to, row[(a.num_heads + h) * d + i]);
          store(a.cache.v, a.cache.dtype, to, row[(a.num_heads + kv_heads + h) * d + i]);
        }
    }
  }

  void attention(const AttentionArgs& a, const BatchLayout& batch) override {
    const int32_t d = a.cache.head_dim, kv_heads = a.cache.kv_heads, page = a.cache.page_size;
    std::vector<double> weights, sum(d);
    for (int32_t s = 0; s < batch.num_seqs; ++s)
      for (int32_t t = batch.cu_query_lens[s]; t < batch.cu_query_lens[s + 1]; ++t) {
        const int32_t last = batch.positions[t];
        const int32_t first = a.window > 0 ? std::max(0, last - a.window + 1) : 0;
        for (int32_t h = 0; h < a.num_heads; ++h) {
          const int32_t kv_head = h / (a.num_heads / kv_heads);
          const float* q = a.q + t * a.q_stride + h * d;
          const auto row = [&](int32_t position) {
            const int64_t number = batch.page_table[int64_t{s} * batch.page_table_stride + position / page];
            return ((number * kv_heads + kv_head) * page + position % page) * d;
          };
          weights.assign(last - first + 1, 0.0);
          double largest = -INFINITY, total = 0;
          for (int32_t p = first; p <= last; ++p) {
            double score = 0;
            for (int32_t i = 0; i < d; ++i) score += double{q[i]} * load(a.cache.k, a.cache.dtype, row(p) + i);
            score *= a.scale;
            if (a.softcap > 0) score = a.softcap * std::tanh(score / a.softcap);
            weights[p - first] = score;
            largest = std::max(largest, score);
          }
          std::fill(sum.begin(), sum.end(), 0.0);
          for (int32_t p = first; p <= last; ++p) {
            const double weight = std::exp(weights[p - first] - largest);
            total += weight;
            for (int32_t i = 0; i < d; ++i) sum[i] += weight * load(a.cache.v, a.cache.dtype, row(p) + i);
          }
          for (int32_t i = 0; i < d; ++i) a.out[t * a.out_stride + h * d + i] = static_cast<float>(sum[i] / total);
        }
      }
  }

  bool has_selection() const override { return true; }
  void encode_pages(const EncodeArgs& args) override { ref::encode_pages(args); }
  void sparse_attention(const SparseAttentionArgs& args, const BatchLayout& batch) override {
    ref::sparse_attention(args, batch);
  }

  void gated_activation(Activation act, const float* x, int64_t x_stride, int64_t rows, int64_t width, float* out,
                        int64_t out_stride) override {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < width; ++i)
        out[r * out_stride + i] = activate(act, x[r * x_stride + i]) * x[r * x_stride + width + i];
  }

  void activation(Activation act, float* x, int64_t x_stride, int64_t rows, int64_t width) override {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < width; ++i) x[r * x_stride + i] = activate(act, x[r * x_stride + i]);
  }

  void add(float* x, int64_t x_stride, const float* y, int64_t y_stride, int64_t rows, int64_t width) override {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < width; ++i) x[r * x_stride + i] += y[r * y_stride + i];
  }

  void softcap(float cap, float* x, int64_t x_stride, int64_t rows, int64_t width) override {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < width; ++i) x[r * x_stride + i] = cap * std::tanh(x[r * x_stride + i] / cap);
  }

  void copy_pages(const KvLayer& cache, std::span<const std::pair<int32_t, int32_t>> pairs) override {
    const size_t bytes = static_cast<size_t>(cache.page_elements()) * dtype_bytes(cache.dtype);
    for (const auto& [from, to] : pairs) {
      std::memcpy(cache.k + to * bytes, cache.k + from * bytes, bytes);
      std::memcpy(cache.v + to * bytes, cache.v + from * bytes, bytes);
      copy_codes(cache, from, to);
    }
  }
};

}  // namespace

std::unique_ptr<Ops> make_ref_ops(ThreadPool&, const OpsOptions&) { return std::make_unique<RefOps>(); }

}  // namespace tinyserve::ops
