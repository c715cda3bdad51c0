#pragma once
// The INT8 weight format, in one place for every backend: per row of W and group of kInt8Group inputs a scale, a
// BFloat16 that is max|w| / 127 rounded up, and codes q in [-127, 127] with w ~ q * scale, q = w / scale rounded to
// nearest even. A BF16 scale costs 6% of the bytes (F32: 12%) and, being rounded up and known before the codes, loses
// at most 0.8% of the resolution; F16 would run out of exponent for small weights.

#include <bit>
#include <cstdint>

#include "tensor/dtype.h"

namespace tinyserve::ops {

/// Scale of the n weights at w. Zero for all zeros, and where the scale would be subnormal; weights that are not finite
/// give a scale that is not.
inline BFloat16 int8_scale(const float* w, int64_t n) {
  uint32_t largest = 0;  // by bits: orders NaN above infinity above the finite
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(w[i]) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  const uint32_t bits = std::bit_cast<uint32_t>(std::bit_cast<float>(largest) / 127.0f);
  if (bits < 0x00800000u) return {0};
  if (bits >= 0x7f800000u) return {static_cast<uint16_t>(bits >> 16 | (bits > 0x7f800000u ? 0x40u : 0u))};
  return {static_cast<uint16_t>((bits + 0xffffu) >> 16)};
}

/// Code of w under a scale from int8_scale(). 0 where that is zero, 1 where it is not finite.
inline int32_t int8_code(float w, float scale) {
  if (scale == 0) return 0;
  if (!(scale <= 0x1.fffffep127f)) return 1;
  // Adding and taking away 1.5 * 2^23 rounds to nearest even what is below 2^22, and unlike nearbyint() becomes SIMD.
  constexpr float kRound = 0x1.8p23f;
  return static_cast<int32_t>((w / scale + kRound) - kRound);
}

}  // namespace tinyserve::ops
