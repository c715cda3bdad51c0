// Elementary functions on Highway vectors of F32. Included once per target (see foreach_target.h), hence the guard.
// Errors are the largest found over all F32 inputs in range, against the exact function (vector_math is exercised by
// the activation cases of ops_cases).

#if defined(TINYSERVE_OPS_CPU_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TINYSERVE_OPS_CPU_VECTOR_MATH_INL_H_
#undef TINYSERVE_OPS_CPU_VECTOR_MATH_INL_H_
#else
#define TINYSERVE_OPS_CPU_VECTOR_MATH_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tinyserve::ops::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr float kLog2e = 1.44269504088896341f;

/// The first n elements at p (n < Lanes), the rest 0; touches nothing beyond. Highway's emulation reads whole vectors even
/// under a mask, hence the copy.
template <class D>
HWY_INLINE auto load_first(D d, const float* p, int64_t n) {
#if HWY_TARGET == HWY_EMU128
  HWY_ALIGN float copy[HWY_MAX_BYTES / sizeof(float)] = {};
  for (int64_t i = 0; i < n; ++i) copy[i] = p[i];
  return hn::Load(d, copy);
#else
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, p);
#endif
}

template <class D, class V>
HWY_INLINE void store_first(D d, V v, float* p, int64_t n) {
#if HWY_TARGET == HWY_EMU128
  HWY_ALIGN float copy[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(v, d, copy);
  for (int64_t i = 0; i < n; ++i) p[i] = copy[i];
#else
  hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(n)), d, p);
#endif
}

/// 2^x. Relative error 1.6e-7; exp2(0) == 1; 0 below -126 (also for -infinity); saturates at 2^127 from 127 up.
/// Polynomial: minimax of the relative error on [-1/2, 1/2] with constant term 1.
template <class D, class V>
HWY_INLINE V exp2(D d, V x) {
  const hn::RebindToSigned<D> di;
  const auto tiny = hn::Lt(x, hn::Set(d, -126.0f));
  x = hn::Min(hn::Max(x, hn::Set(d, -126.0f)), hn::Set(d, 127.0f));
  const V n = hn::Round(x);
  const V r = hn::Sub(x, n);
  V p = hn::Set(d, 0x1.5bba14p-10f);
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.3cea88p-7f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.c6b752p-5f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.ebf9bcp-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 0x1.62e42ap-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127))));
  return hn::IfThenZeroElse(tiny, hn::Mul(p, power));
}

/// e^x. Relative error 1e-7 (1 + |x|): the argument of exp2 is rounded.
template <class D, class V>
HWY_INLINE V exp(D d, V x) {
  return exp2(d, hn::Mul(x, hn::Set(d, kLog2e)));
}

/// 1 / (1 + e^-x). Absolute error 2e-7; relative error 1e-7 (1 + |x|) for negative x down to -87.
template <class D, class V>
HWY_INLINE V sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, exp(d, hn::Neg(x))));
}

/// Absolute error 3e-7.
template <class D, class V>
HWY_INLINE V tanh(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V e = exp2(d, hn::Mul(x, hn::Set(d, 2 * kLog2e)));
  return hn::NegMulAdd(hn::Set(d, 2.0f), hn::Div(one, hn::Add(e, one)), one);
}

/// Complementary error function of |x|, absolute error 3e-7. Abramowitz and Stegun, Handbook of Mathematical Functions,
/// 7.1.26.
template <class D, class V>
HWY_INLINE V erfc_of_magnitude(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V z = hn::Abs(x);
  const V t = hn::Div(one, hn::MulAdd(hn::Set(d, 0.3275911f), z, one));
  V p = hn::Set(d, 1.061405429f);
  p = hn::MulAdd(p, t, hn::Set(d, -1.453152027f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.421413741f));
  p = hn::MulAdd(p, t, hn::Set(d, -0.284496736f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.254829592f));
  return hn::Mul(hn::Mul(p, t), exp(d, hn::Neg(hn::Mul(z, z))));
}

/// F32 lanes to the upper halves that are their BF16, rounded to nearest even, NaN kept: the same as to_bfloat16().
template <class D, class V>
HWY_INLINE auto bfloat16_bits(D, V x) {
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const hn::Rebind<uint16_t, D> du16;
  const auto u = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(u, hn::Add(odd, hn::Set(du, 0x7fffu))));
  const auto quiet = hn::Or(hn::ShiftRight<16>(u), hn::Set(du, 0x40u));
  const auto bits = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, rounded);
  return hn::DemoteTo(du16, hn::BitCast(di, bits));
}

/// N elements of BF16 at p, as F32.
template <class D>
HWY_INLINE auto load_bfloat16(D d, const uint16_t* p) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> du16;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(du16, p))));
}

}  // namespace tinyserve::ops::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
