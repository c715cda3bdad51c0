#include "tensor/block_parts.h"

#include <cstring>

namespace tinyserve {
namespace {

// Blocks are read through these copies, so that the loops below become SIMD whatever the block's address.
template <size_t N>
struct Bytes {
  explicit Bytes(const std::byte* p) { std::memcpy(v, p, N); }
  uint8_t operator[](int i) const { return v[i]; }
  uint8_t v[N];
};

Float16 half(const std::byte* p) {
  Float16 h;
  std::memcpy(&h.bits, p, 2);
  return h;
}
Float16 negated(Float16 h) { return {static_cast<uint16_t>(h.bits ^ 0x8000u)}; }

uint8_t narrow(int code) { return static_cast<uint8_t>(code); }

// 32 numbers: the low halves of 16 bytes are numbers 0 to 15, the high halves 16 to 31.
void nibbles_of_32(const std::byte* p, uint8_t* codes) {
  const Bytes<16> q(p);
  for (int i = 0; i < 16; ++i) codes[i] = q[i] & 15;
  for (int i = 0; i < 16; ++i) codes[16 + i] = q[i] >> 4;
}

// Number i's at bit i; eight numbers at a time, in the bytes of a word.
void add_fifth_bits_of_32(const std::byte* p, uint8_t* codes) {
  const Bytes<4> bits(p);
  for (int i = 0; i < 4; ++i) {
    const uint64_t one_each = bits[i] * 0x0101010101010101u & 0x8040201008040201u;  // byte j: nothing but its bit j
    uint64_t eight;
    std::memcpy(&eight, codes + 8 * i, 8);
    eight |= ((one_each + 0x7f7f7f7f7f7f7f7fu) & 0x8080808080808080u) >> 3;
    std::memcpy(codes + 8 * i, &eight, 8);
  }
}

// 256 numbers, 64 in each 32 bytes: first the low halves, then the high ones.
void nibbles_of_256(const std::byte* p, uint8_t* codes) {
  const Bytes<128> q(p);
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 32; ++i) {
      codes[64 * j + i] = q[32 * j + i] & 15;
      codes[64 * j + 32 + i] = q[32 * j + i] >> 4;
    }
}

// 256 numbers, 128 in each 32 bytes: number 32 j + i has bits 2 j of byte i. Added to the codes at bit `at`.
void add_pairs_of_256(const std::byte* p, int at, uint8_t* codes) {
  const Bytes<64> q(p);
  for (int h = 0; h < 2; ++h)
    for (int j = 0; j < 4; ++j)
      for (int i = 0; i < 32; ++i) {
        uint8_t& code = codes[128 * h + 32 * j + i];
        code = narrow(code | (q[32 * h + i] >> (2 * j) & 3) << at);
      }
}

// 256 numbers in 32 bytes: number 32 j + i has bit j of byte i.
void add_bits_of_256(const std::byte* p, int at, uint8_t* codes) {
  const Bytes<32> q(p);
  for (int j = 0; j < 8; ++j)
    for (int i = 0; i < 32; ++i) codes[32 * j + i] = narrow(codes[32 * j + i] | (q[i] >> j & 1) << at);
}

// Eight scales and eight offsets of 6 bits in 12 bytes: see block_format.cc.
void six_bit_scales(const std::byte* p, BlockParts& out) {
  const Bytes<12> q(p);
  for (int i = 0; i < 4; ++i) {
    out.scales[i] = static_cast<int8_t>(q[i] & 63);
    out.offsets[i] = static_cast<int8_t>(q[4 + i] & 63);
    out.scales[4 + i] = static_cast<int8_t>((q[8 + i] & 15) | q[i] >> 6 << 4);
    out.offsets[4 + i] = static_cast<int8_t>(q[8 + i] >> 4 | q[4 + i] >> 6 << 4);
  }
}

void q2_k(const std::byte* b, BlockParts& out) {
  const Bytes<16> scales(b);
  for (int i = 0; i < 16; ++i) {
    out.scales[i] = static_cast<int8_t>(scales[i] & 15);
    out.offsets[i] = static_cast<int8_t>(scales[i] >> 4);
  }
  std::memset(out.codes, 0, 256);
  add_pairs_of_256(b + 16, 0, out.codes);
  out.d = half(b + 80);
  out.m = half(b + 82);
}

void q3_k(const std::byte* b, BlockParts& out) {
  const Bytes<12> scales(b + 96);
  for (int i = 0; i < 16; ++i) {
    const int low = scales[i % 8] >> (i / 8 * 4) & 15, high = scales[8 + i % 4] >> (i / 4 * 2) & 3;
    out.scales[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
  std::memset(out.codes, 0, 256);
  add_pairs_of_256(b + 32, 0, out.codes);
  add_bits_of_256(b, 2, out.codes);
  out.d = half(b + 108);
}

void q6_k(const std::byte* b, BlockParts& out) {
  const Bytes<128> low(b);
  for (int h = 0; h < 2; ++h)
    for (int i = 0; i < 64; ++i) {
      out.codes[128 * h + i] = low[64 * h + i] & 15;
      out.codes[128 * h + 64 + i] = low[64 * h + i] >> 4;
    }
  add_pairs_of_256(b + 128, 4, out.codes);
  std::memcpy(out.scales, b + 192, 16);
  out.d = half(b + 208);
}

}  // namespace

void take_apart(BlockFormat format, const std::byte* b, BlockParts& out) {
  switch (format) {
    case BlockFormat::kQ4_0:
      out.d = half(b);
      return nibbles_of_32(b + 2, out.codes);
    case BlockFormat::kQ4_1:
      out.d = half(b);
      out.m = negated(half(b + 2));
      return nibbles_of_32(b + 4, out.codes);
    case BlockFormat::kQ5_0:
      out.d = half(b);
      nibbles_of_32(b + 6, out.codes);
      return add_fifth_bits_of_32(b + 2, out.codes);
    case BlockFormat::kQ5_1:
      out.d = half(b);
      out.m = negated(half(b + 2));
      nibbles_of_32(b + 8, out.codes);
      return add_fifth_bits_of_32(b + 4, out.codes);
    case BlockFormat::kQ8_0:
      out.d = half(b);
      std::memcpy(out.codes, b + 2, 32);
      for (int i = 0; i < 32; ++i) out.codes[i] ^= 0x80;  // signed to unsigned: 128 more
      return;
    case BlockFormat::kQ2K:
      return q2_k(b, out);
    case BlockFormat::kQ3K:
      return q3_k(b, out);
    case BlockFormat::kQ4K:
    case BlockFormat::kQ5K:
      out.d = half(b);
      out.m = half(b + 2);
      six_bit_scales(b + 4, out);
      nibbles_of_256(b + (format == BlockFormat::kQ4K ? 16 : 48), out.codes);
      if (format == BlockFormat::kQ5K) add_bits_of_256(b + 16, 4, out.codes);
      return;
    case BlockFormat::kQ6K:
      return q6_k(b, out);
  }
}

}  // namespace tinyserve
