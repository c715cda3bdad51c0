#include <cmath>

#include "ops/cpu/row_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/norm.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tinyserve::ops::cpu::HWY_NAMESPACE {

// Sums f(x[i]) over a row with four chains, so that the latency of the addition is hidden; the order is fixed by width.
template <class D, class F>
HWY_INLINE float sum_row(D d, const float* x, int64_t width, F&& f) {
  const int64_t n = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 4 * n <= width; i += 4 * n) {
    s0 = f(hn::LoadU(d, x + i), s0);
    s1 = f(hn::LoadU(d, x + i + n), s1);
    s2 = f(hn::LoadU(d, x + i + 2 * n), s2);
    s3 = f(hn::LoadU(d, x + i + 3 * n), s3);
  }
  for (; i + n <= width; i += n) s0 = f(hn::LoadU(d, x + i), s0);
  if (i < width) {
    const auto mask = hn::FirstN(d, static_cast<size_t>(width - i));
    s1 = hn::IfThenElse(mask, f(load_first(d, x + i, width - i), s1), s1);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

// out[i] = f(x[i], weight[i], bias ? bias[i] : 0)
template <class D, class F>
HWY_INLINE void map_row(D d, const float* x, int64_t width, const float* weight, const float* bias, float* out, F&& f) {
  const int64_t n = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + n <= width; i += n)
    hn::StoreU(f(hn::LoadU(d, x + i), hn::LoadU(d, weight + i), bias ? hn::LoadU(d, bias + i) : hn::Zero(d)), d, out + i);
  if (i < width) {
    const int64_t left = width - i;
    const auto b = bias ? load_first(d, bias + i, left) : hn::Zero(d);
    store_first(d, f(load_first(d, x + i, left), load_first(d, weight + i, left), b), out + i, left);
  }
}

void rms_norm(const float* x, int64_t width, const float* weight, float eps, float* out) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const float squares = sum_row(d, x, width, [](V v, V sum) HWY_ATTR { return hn::MulAdd(v, v, sum); });
  const V inverse = hn::Set(d, 1.0f / std::sqrt(squares / static_cast<float>(width) + eps));
  map_row(d, x, width, weight, nullptr, out, [&](V v, V w, V) HWY_ATTR { return hn::Mul(hn::Mul(v, inverse), w); });
}

void layer_norm(const float* x, int64_t width, const float* weight, const float* bias, float eps, float* out) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const float count = static_cast<float>(width);
  const V mean = hn::Set(d, sum_row(d, x, width, [](V v, V sum) HWY_ATTR { return hn::Add(v, sum); }) / count);
  const float squares = sum_row(d, x, width, [&](V v, V sum) HWY_ATTR {
    const V c = hn::Sub(v, mean);
    return hn::MulAdd(c, c, sum);
  });
  const V inverse = hn::Set(d, 1.0f / std::sqrt(squares / count + eps));
  map_row(d, x, width, weight, bias, out,
          [&](V v, V w, V b) HWY_ATTR { return hn::MulAdd(hn::Mul(hn::Sub(v, mean), inverse), w, b); });
}

}  // namespace tinyserve::ops::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tinyserve::ops::cpu {
HWY_EXPORT(rms_norm);
HWY_EXPORT(layer_norm);
RmsNormRow rms_norm_row() { return &HWY_DYNAMIC_DISPATCH(rms_norm); }
LayerNormRow layer_norm_row() { return &HWY_DYNAMIC_DISPATCH(layer_norm); }
}  // namespace tinyserve::ops::cpu
#endif
