// Compiled without contraction (see CMakeLists.txt): d * q + m is two roundings, as the formats define it.

#include "tensor/block_format.h"

#include <cstring>

#include "tensor/dtype.h"

namespace tinyserve {
namespace {

uint32_t u8(const std::byte* p) { return std::to_integer<uint32_t>(*p); }

float half(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return to_float(Float16{bits});
}

float as_float(int32_t code) { return static_cast<float>(code); }
float as_float(uint32_t code) { return static_cast<float>(static_cast<int32_t>(code)); }

// Blocks of 32: the low halves of 16 bytes are numbers 0 to 15, the high halves 16 to 31.

void q4_0(const std::byte* b, float* out) {
  const float d = half(b);
  for (int i = 0; i < 16; ++i) {
    const uint32_t q = u8(b + 2 + i);
    out[i] = d * as_float(static_cast<int32_t>(q & 15u) - 8);
    out[i + 16] = d * as_float(static_cast<int32_t>(q >> 4) - 8);
  }
}

void q4_1(const std::byte* b, float* out) {
  const float d = half(b), m = half(b + 2);
  for (int i = 0; i < 16; ++i) {
    const uint32_t q = u8(b + 4 + i);
    out[i] = d * as_float(q & 15u) + m;
    out[i + 16] = d * as_float(q >> 4) + m;
  }
}

// The fifth bits of all 32 numbers, number i's at bit i.
uint32_t fifth_bits(const std::byte* p) { return u8(p) | u8(p + 1) << 8 | u8(p + 2) << 16 | u8(p + 3) << 24; }

void q5_0(const std::byte* b, float* out) {
  const float d = half(b);
  const uint32_t high = fifth_bits(b + 2);
  for (int i = 0; i < 16; ++i) {
    const uint32_t q = u8(b + 6 + i);
    out[i] = d * as_float(static_cast<int32_t>((q & 15u) | (high >> i & 1u) << 4) - 16);
    out[i + 16] = d * as_float(static_cast<int32_t>(q >> 4 | (high >> (i + 16) & 1u) << 4) - 16);
  }
}

void q5_1(const std::byte* b, float* out) {
  const float d = half(b), m = half(b + 2);
  const uint32_t high = fifth_bits(b + 4);
  for (int i = 0; i < 16; ++i) {
    const uint32_t q = u8(b + 8 + i);
    out[i] = d * as_float((q & 15u) | (high >> i & 1u) << 4) + m;
    out[i + 16] = d * as_float(q >> 4 | (high >> (i + 16) & 1u) << 4) + m;
  }
}

void q8_0(const std::byte* b, float* out) {
  const float d = half(b);
  for (int i = 0; i < 32; ++i) out[i] = as_float(int32_t{static_cast<int8_t>(u8(b + 2 + i))}) * d;
}

// Blocks of 256. Two-bit codes of 128 numbers share 32 bytes: number 32 j + i has bits 2 j of byte i.

void q2_k(const std::byte* b, float* out) {
  const std::byte *scales = b, *codes = b + 16;
  const float d = half(b + 80), m = half(b + 82);
  for (int part = 0; part < 16; ++part) {
    const uint32_t packed = u8(scales + part);
    const float scale = d * as_float(packed & 15u), offset = m * as_float(packed >> 4);
    const std::byte* q = codes + part / 8 * 32 + part % 2 * 16;
    const int shift = part % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) *out++ = scale * as_float(u8(q + i) >> shift & 3u) - offset;
  }
}

void q3_k(const std::byte* b, float* out) {
  const std::byte *mask = b, *codes = b + 32, *scales = b + 96;
  const float d = half(b + 108);
  for (int part = 0; part < 16; ++part) {
    // Low four bits of scale 8 h + i in half h of byte i, the two above them in bytes 8 to 11.
    const uint32_t low = u8(scales + part % 8) >> (part / 8 * 4) & 15u;
    const uint32_t high = u8(scales + 8 + part % 4) >> (part / 4 * 2) & 3u;
    const float scale = d * as_float(static_cast<int32_t>(low | high << 4) - 32);
    const int offset = part % 2 * 16, shift = part % 8 / 2 * 2, bit = part / 2;
    const std::byte* q = codes + part / 8 * 32 + offset;
    for (int i = 0; i < 16; ++i) {
      const uint32_t above = u8(mask + offset + i) >> bit & 1u;
      *out++ = scale * as_float(static_cast<int32_t>((u8(q + i) >> shift & 3u) | above << 2) - 4);
    }
  }
}

// Scales (offset 0) and offsets (offset 4) of Q4_K and Q5_K: 6 bits each, 12 bytes. The first four of each have their
// byte's low six bits; of the others, four bits lie in bytes 8 to 11 and two above the first four's.
uint32_t six_bits(const std::byte* packed, int part, int offset) {
  if (part < 4) return u8(packed + part + offset) & 63u;
  const uint32_t low = u8(packed + part + 4) >> offset & 15u;
  return low | (u8(packed + part - 4 + offset) >> 6) << 4;
}

void q4_k(const std::byte* b, float* out) {
  const float d = half(b), m = half(b + 2);
  for (int part = 0; part < 8; ++part) {
    const float scale = d * as_float(six_bits(b + 4, part, 0)), offset = m * as_float(six_bits(b + 4, part, 4));
    const std::byte* q = b + 16 + part / 2 * 32;
    const int shift = part % 2 * 4;
    for (int i = 0; i < 32; ++i) *out++ = scale * as_float(u8(q + i) >> shift & 15u) - offset;
  }
}

void q5_k(const std::byte* b, float* out) {
  const float d = half(b), m = half(b + 2);
  const std::byte* high = b + 16;
  for (int part = 0; part < 8; ++part) {
    const float scale = d * as_float(six_bits(b + 4, part, 0)), offset = m * as_float(six_bits(b + 4, part, 4));
    const std::byte* q = b + 48 + part / 2 * 32;
    const int shift = part % 2 * 4;
    for (int i = 0; i < 32; ++i)
      *out++ = scale * as_float((u8(q + i) >> shift & 15u) | (u8(high + i) >> part & 1u) << 4) - offset;
  }
}

void q6_k(const std::byte* b, float* out) {
  const std::byte *low = b, *high = b + 128, *scales = b + 192;
  const float d = half(b + 208);
  for (int part = 0; part < 16; ++part) {
    const float scale = d * as_float(int32_t{static_cast<int8_t>(u8(scales + part))});
    // Of 128 numbers: low halves of 64 bytes, then their high halves; bits 4 and 5 as in Q2_K.
    const int within = part % 8 * 16;
    const std::byte* l = low + part / 8 * 64 + within % 64;
    const std::byte* h = high + part / 8 * 32 + within % 32;
    const int low_shift = within / 64 * 4, high_shift = within / 32 * 2;
    for (int i = 0; i < 16; ++i) {
      const uint32_t q = (u8(l + i) >> low_shift & 15u) | (u8(h + i) >> high_shift & 3u) << 4;
      *out++ = scale * as_float(static_cast<int32_t>(q) - 32);
    }
  }
}

}  // namespace

void dequantize(BlockFormat format, const std::byte* blocks, int64_t num_blocks, float* out) {
  constexpr void (*kDecode[kNumBlockFormats])(const std::byte*, float*) = {q4_0, q4_1, q5_0, q5_1, q8_0,
                                                                           q2_k, q3_k, q4_k, q5_k, q6_k};
  const auto decode = kDecode[static_cast<int>(format)];
  const BlockLayout layout = block_layout(format);
  for (int64_t i = 0; i < num_blocks; ++i) decode(blocks + i * layout.bytes, out + i * layout.values);
}

}  // namespace tinyserve
