#include <cstring>

#include "ops/cpu/row_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/embed.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tinyserve::ops::cpu::HWY_NAMESPACE {

// N elements at p, an address of any alignment (tables are read in the mapped checkpoint).
template <class D>
HWY_INLINE auto load_any(D d, const std::byte* p, DType dtype) {
  if (dtype == DType::kF32) return hn::LoadU(d, reinterpret_cast<const float*>(p));
  if (dtype == DType::kBF16) return load_bfloat16(d, reinterpret_cast<const uint16_t*>(p));
  const hn::Rebind<uint16_t, D> du16;
  const hn::Rebind<hwy::float16_t, D> df16;
  return hn::PromoteTo(d, hn::BitCast(df16, hn::LoadU(du16, reinterpret_cast<const uint16_t*>(p))));
}

void embed(const std::byte* row, DType dtype, int64_t width, float scale, bool accumulate, float* out) {
  const hn::ScalableTag<float> d;
  const int64_t n = static_cast<int64_t>(hn::Lanes(d)), bytes = static_cast<int64_t>(dtype_bytes(dtype));
  const auto s = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + n <= width; i += n) {
    const auto v = load_any(d, row + i * bytes, dtype);
    hn::StoreU(accumulate ? hn::MulAdd(v, s, hn::LoadU(d, out + i)) : hn::Mul(v, s), d, out + i);
  }
  if (i < width) {
    HWY_ALIGN std::byte tail[HWY_MAX_BYTES] = {};
    std::memcpy(tail, row + i * bytes, static_cast<size_t>((width - i) * bytes));
    const auto v = load_any(d, tail, dtype);
    const auto y = accumulate ? hn::MulAdd(v, s, load_first(d, out + i, width - i)) : hn::Mul(v, s);
    store_first(d, y, out + i, width - i);
  }
}

}  // namespace tinyserve::ops::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tinyserve::ops::cpu {
HWY_EXPORT(embed);
EmbedRow embed_row() { return &HWY_DYNAMIC_DISPATCH(embed); }
}  // namespace tinyserve::ops::cpu
#endif
