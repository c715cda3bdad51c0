#include <cmath>
#include <cstring>

#include "ops/cpu/row_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/append_kv.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tinyserve::ops::cpu::HWY_NAMESPACE {

using FloatTag = hn::ScalableTag<float>;

// Calls fn(load, store, i) for i = 0, N, 2N, ... < width: the last call's load and store are partial.
template <class Fn>
HWY_INLINE void for_vectors(int64_t width, Fn&& fn) {
  const FloatTag d;
  using V = hn::Vec<FloatTag>;
  const int64_t n = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + n <= width; i += n)
    fn([=](const float* p) HWY_ATTR { return hn::LoadU(d, p); }, [=](V v, float* p) HWY_ATTR { hn::StoreU(v, d, p); }, i);
  const int64_t left = width - i;
  if (left > 0)
    fn([=](const float* p) HWY_ATTR { return load_first(d, p, left); },
       [=](V v, float* p) HWY_ATTR { store_first(d, v, p, left); }, i);
}

// x = x / sqrt(mean(x^2) + eps) * weight for one head.
HWY_INLINE void norm_head(float* x, int64_t width, const float* weight, float eps) {
  const FloatTag d;
  auto sum = hn::Zero(d);
  for_vectors(width, [&](auto load, auto, int64_t i) HWY_ATTR {
    const auto v = load(x + i);
    sum = hn::MulAdd(v, v, sum);
  });
  const float squares = hn::GetLane(hn::SumOfLanes(d, sum));
  const auto inverse = hn::Set(d, 1.0f / std::sqrt(squares / static_cast<float>(width) + eps));
  for_vectors(width, [&](auto load, auto store, int64_t i) HWY_ATTR {
    store(hn::Mul(hn::Mul(load(x + i), inverse), load(weight + i)), x + i);
  });
}

// Turns channel pairs (i, i + half) by the angles whose cosines and sines are given.
HWY_INLINE void rotate_head(float* x, int64_t half, const float* cosines, const float* sines) {
  for_vectors(half, [&](auto load, auto store, int64_t i) HWY_ATTR {
    const auto c = load(cosines + i), s = load(sines + i);
    const auto first = load(x + i), second = load(x + i + half);
    store(hn::MulSub(first, c, hn::Mul(second, s)), x + i);
    store(hn::MulAdd(second, c, hn::Mul(first, s)), x + i + half);
  });
}

HWY_INLINE void store_head(const float* x, int64_t width, DType dtype, std::byte* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, x, static_cast<size_t>(width) * sizeof(float));
    return;
  }
  const FloatTag d;
  const hn::Rebind<uint16_t, FloatTag> du16;
  const int64_t n = static_cast<int64_t>(hn::Lanes(d));
  uint16_t* out = reinterpret_cast<uint16_t*>(to);
  int64_t i = 0;
  for (; i + n <= width; i += n) hn::StoreU(bfloat16_bits(d, hn::LoadU(d, x + i)), du16, out + i);
  for (; i < width; ++i) out[i] = to_bfloat16(x[i]).bits;
}

void append(const AppendArgs& a, int64_t t, int64_t slot) {
  const int64_t d = a.cache.head_dim, kv_heads = a.cache.kv_heads, page = a.cache.page_size;
  float* row = a.qkv + t * a.qkv_stride;
  const int64_t half = a.rotary_dim / 2;
  for (int64_t h = 0; h < a.num_heads + kv_heads; ++h) {
    const float* norm = h < a.num_heads ? a.q_norm : a.k_norm;
    if (norm) norm_head(row + h * d, d, norm, a.norm_eps);
    if (a.cos) rotate_head(row + h * d, half, a.cos + t * half, a.sin + t * half);
  }
  const int64_t bytes = static_cast<int64_t>(dtype_bytes(a.cache.dtype));
  const float *k = row + a.num_heads * d, *v = k + kv_heads * d;
  int64_t to = ((slot / page * kv_heads) * page + slot % page) * d * bytes;
  for (int64_t h = 0; h < kv_heads; ++h, to += page * d * bytes) {
    store_head(k + h * d, d, a.cache.dtype, a.cache.k + to);
    store_head(v + h * d, d, a.cache.dtype, a.cache.v + to);
  }
}

}  // namespace tinyserve::ops::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tinyserve::ops::cpu {
HWY_EXPORT(append);
AppendToken append_token() { return &HWY_DYNAMIC_DISPATCH(append); }
}  // namespace tinyserve::ops::cpu
#endif
