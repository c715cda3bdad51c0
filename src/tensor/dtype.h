#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tinyserve {

enum class DType : uint8_t { kF32, kF16, kBF16 };

constexpr size_t dtype_bytes(DType d) { return d == DType::kF32 ? 4 : 2; }
constexpr std::string_view dtype_name(DType d) {
  return d == DType::kF32 ? "F32" : d == DType::kF16 ? "F16" : "BF16";
}

/// Upper half of an F32. Conversion from F32 rounds to nearest even; NaN stays NaN.
struct BFloat16 {
  uint16_t bits;
};

inline float to_float(BFloat16 v) { return std::bit_cast<float>(static_cast<uint32_t>(v.bits) << 16); }
inline BFloat16 to_bfloat16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

/// IEEE half. Subnormals, infinities and NaN are exact.
struct Float16 {
  uint16_t bits;
};

inline float to_float(Float16 v) {
  const uint32_t sign = static_cast<uint32_t>(v.bits & 0x8000u) << 16;
  const uint32_t exponent = (v.bits >> 10) & 31u, mantissa = v.bits & 1023u;
  if (exponent == 0) {
    const float f = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -f : f;
  }
  const uint32_t e = exponent == 31 ? 255u : exponent + 112u;
  return std::bit_cast<float>(sign | (e << 23) | (mantissa << 13));
}

}  // namespace tinyserve
