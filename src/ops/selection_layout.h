#pragma once
// Query-aware selection: what is kept beside K and V of a page, bit by bit. One header for the CPU and CUDA; sparse_attention
// in ops.h says how it is read.
//
// A key is coded in its head's own axes: u = A (k - mean), D values of variance about 1, axes by falling weight, so that
//   scale q.(k - mean) = sum_a c_a u_a   with   c = scale B q.
// Each axis has 0, 2 or 4 bits, the same for four axes in a row (a group). Codes are nested: the upper two bits of a 4-bit
// code are the 2-bit code, so the fine grade (2 bits a channel in all) only adds to the coarse one (3/4 of a bit):
//   coarse: groups [0, coarse4) have 4 bits, the next coarse2 groups 2;   2 coarse4 + coarse2 <= coarse_units(D)
//   fine:   groups [0, fine4) have 4 bits, the next fine2 groups 2;       2 fine4 + fine2 <= D / 4
//   fine4 >= coarse4, fine4 + fine2 >= coarse4 + coarse2.
//
// Per page of 16 tokens and KV head (all pages of a layer: [num_pages, kv_heads, bytes]):
// - coarse [16 coarse_units(D)]: its groups in order. A group of 2 bits is 16 bytes: byte t is token t's, axis j of the group
//   at bits 2j. A group of 4 bits is 32 bytes: bytes 2t and 2t + 1 are token t's, axis j at bits 4j of that 16-bit word.
// - fine [16 fine_units(D)]: what fine has beyond coarse, groups in order: one that goes from 2 to 4 bits has the lower two bits,
//   laid out as a group of 2 bits; from 0 to 2 and from 0 to 4 as above.
// - mean [D / 2 + D / 8]: the page's mean value: for each 16 channels 8 bytes, byte i channel i (low nibble) and channel
//   i + 8 (high nibble), then, behind all of them, a BF16 scale for each 16 channels. value = (nibble - 7.5) * scale.
// - values [16 tokens, D / 16 words of 64 bits]: for each 16 channels 3 bits a channel, channel i at bits 3i, and the BF16
//   scale at bits 48..63. value = (code - 3.5) * scale.
// Bytes of a page's codes mean something once its last slot was appended; nothing reads them before.

#include <cstdint>

namespace tinyserve::ops {

constexpr int32_t kCodePage = 16;  ///< tokens of a page with codes

/// Levels of the codes in units of kLevelStep: Lloyd-Max for a Gaussian of variance 1 under one constraint: the middle boundary of
/// each side is 0.92, so that both grades lose little: distortion .0101 with 4 bits (best alone: .0095), .1183 with 2 (.1175).
constexpr float kLevelStep = 2.6262f / 126;
constexpr int8_t kLevels4[16] = {-126, -93, -70, -52, -38, -27, -16, -5, 5, 16, 27, 38, 52, 70, 93, 126};
constexpr int8_t kLevels2[4] = {-70, -21, 21, 70};
/// Between the codes 8..15; those between 0..7 are their mirror image, and 0 is between 7 and 8.
constexpr float kBoundaries[7] = {0.2201f, 0.4440f, 0.6755f, 0.9200f, 1.2783f, 1.7046f, 2.2831f};
/// Expected squared error of an axis with 0, 2 and 4 bits, of variance 1 and Gaussian.
constexpr float kDistortion0 = 1.0f, kDistortion2 = 0.1183f, kDistortion4 = 0.0101f;

/// The 4-bit code of u; its upper two bits are the 2-bit code.
constexpr int32_t code_of(float u) {
  const float size = u < 0 ? -u : u;
  int32_t i = 0;
  while (i < 7 && size > kBoundaries[i]) ++i;
  return u < 0 ? 7 - i : 8 + i;
}

/// Head dimensions that have codes.
constexpr bool has_codes(int32_t head_dim) { return head_dim >= 16 && head_dim <= 256 && head_dim % 16 == 0; }
/// Units of 16 bytes (4 axes x 16 tokens x 2 bits) in a page and head: the coarse grade and what the fine grade adds.
constexpr int32_t coarse_units(int32_t head_dim) { return (3 * head_dim + 31) / 32; }
constexpr int32_t fine_units(int32_t head_dim) { return head_dim / 4 - coarse_units(head_dim); }
/// Bytes of a page and head.
constexpr int32_t coarse_bytes(int32_t head_dim) { return 16 * coarse_units(head_dim); }
constexpr int32_t fine_bytes(int32_t head_dim) { return 16 * fine_units(head_dim); }
constexpr int32_t mean_bytes(int32_t head_dim) { return head_dim / 2 + head_dim / 8; }
constexpr int32_t value_token_bytes(int32_t head_dim) { return head_dim / 2; }
constexpr int32_t value_bytes(int32_t head_dim) { return kCodePage * value_token_bytes(head_dim); }

/// How one KV head's axes share the bits, in groups of 4 axes (above).
struct HeadBits {
  uint8_t coarse4 = 0, coarse2 = 0, fine4 = 0, fine2 = 0;
  constexpr int32_t coarse(int32_t group) const { return group < coarse4 ? 4 : group < coarse4 + coarse2 ? 2 : 0; }
  constexpr int32_t fine(int32_t group) const { return group < fine4 ? 4 : group < fine4 + fine2 ? 2 : 0; }
};

/// The map of one layer, frozen before its first page is coded. All in the backend's memory.
struct SelectionMap {
  const HeadBits* bits = nullptr;     ///< [kv_heads]
  const float* mean = nullptr;        ///< [kv_heads, D], the mean key
  const float* to_axes = nullptr;     ///< [kv_heads, D axes, D]: u = A (k - mean)
  const float* from_axes = nullptr;   ///< [kv_heads, D axes, D]: c = scale B q, with B = A^-T
  /// [kv_heads, D axes]: expected squared error of u_a as coded in each grade; for axes without bits its variance.
  const float* coarse_error = nullptr;
  const float* fine_error = nullptr;
};

/// The codes of one layer's pages (above), null where they are not kept. `values` may be null when the others are not.
struct PageCodes {
  uint8_t* coarse = nullptr;
  uint8_t* fine = nullptr;
  uint8_t* mean = nullptr;
  uint64_t* values = nullptr;
  constexpr explicit operator bool() const { return coarse != nullptr; }
};

}  // namespace tinyserve::ops
