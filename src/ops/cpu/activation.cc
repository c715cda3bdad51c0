#include "ops/cpu/row_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/activation.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tinyserve::ops::cpu::HWY_NAMESPACE {

template <class D, class F>
HWY_INLINE void for_row(D d, const float* x, const float* gate, int64_t width, float* out, F&& f) {
  const int64_t n = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + n <= width; i += n) {
    const auto y = f(hn::LoadU(d, x + i));
    hn::StoreU(gate ? hn::Mul(y, hn::LoadU(d, gate + i)) : y, d, out + i);
  }
  if (i < width) {
    const auto y = f(load_first(d, x + i, width - i));
    store_first(d, gate ? hn::Mul(y, load_first(d, gate + i, width - i)) : y, out + i, width - i);
  }
}

void activation(Activation act, const float* x, const float* gate, int64_t width, float* out) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  switch (act) {
    case Activation::kSilu:
      return for_row(d, x, gate, width, out, [&](V v) HWY_ATTR { return hn::Mul(v, sigmoid(d, v)); });
    case Activation::kGelu:
      // x Phi(x): for negative x, x * erfc(|x| / sqrt 2) / 2, which does not cancel.
      return for_row(d, x, gate, width, out, [&](V v) HWY_ATTR {
        const V tail = hn::Mul(hn::Set(d, 0.5f), erfc_of_magnitude(d, hn::Mul(v, hn::Set(d, 0.70710678118654752f))));
        const V phi = hn::IfThenElse(hn::Lt(v, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 1.0f), tail));
        return hn::Mul(v, phi);
      });
    case Activation::kGeluTanh:
      // (1 + tanh u) / 2 is sigmoid(2u).
      return for_row(d, x, gate, width, out, [&](V v) HWY_ATTR {
        const V cubic = hn::MulAdd(hn::Mul(hn::Set(d, 0.044715f), hn::Mul(v, v)), v, v);
        return hn::Mul(v, sigmoid(d, hn::Mul(hn::Set(d, 2 * 0.79788456080286536f), cubic)));
      });
    case Activation::kRelu:
      return for_row(d, x, gate, width, out, [&](V v) HWY_ATTR { return hn::Max(v, hn::Zero(d)); });
  }
}

}  // namespace tinyserve::ops::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tinyserve::ops::cpu {
HWY_EXPORT(activation);
ActivationRow activation_row() { return &HWY_DYNAMIC_DISPATCH(activation); }
}  // namespace tinyserve::ops::cpu
#endif
