// x += y, and Gemma 2's x = cap * tanh(x / cap).
#include "ops/cpu/row_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/elementwise.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tinyserve::ops::cpu::HWY_NAMESPACE {

void add(float* x, const float* y, int64_t width) {
  const hn::ScalableTag<float> d;
  const int64_t n = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + n <= width; i += n) hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, x + i);
  for (; i < width; ++i) x[i] += y[i];
}

void softcap(float cap, float* x, int64_t width) {
  const hn::ScalableTag<float> d;
  const int64_t n = static_cast<int64_t>(hn::Lanes(d));
  const auto inverse = hn::Set(d, 1.0f / cap), scale = hn::Set(d, cap);
  int64_t i = 0;
  for (; i + n <= width; i += n) hn::StoreU(hn::Mul(scale, tanh(d, hn::Mul(hn::LoadU(d, x + i), inverse))), d, x + i);
  if (i < width) {
    const auto y = hn::Mul(scale, tanh(d, hn::Mul(load_first(d, x + i, width - i), inverse)));
    store_first(d, y, x + i, width - i);
  }
}

}  // namespace tinyserve::ops::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tinyserve::ops::cpu {
HWY_EXPORT(add);
HWY_EXPORT(softcap);
AddRow add_row() { return &HWY_DYNAMIC_DISPATCH(add); }
SoftcapRow softcap_row() { return &HWY_DYNAMIC_DISPATCH(softcap); }
}  // namespace tinyserve::ops::cpu
#endif
