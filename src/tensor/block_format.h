#pragma once
// Quantised weights as GGUF files keep them: a row is cut into blocks of 32 or 256 numbers, a block is a fixed number
// of bytes that holds small codes and the scales to read them by. The layouts and the order of the float operations are
// those of ggml (https://github.com/ggml-org/ggml, ggml-common.h and the `gguf` package's quants.py): dequantize()
// gives the same bits on every machine, and is the definition that every faster kernel is tested against.
//
// q: code; d, m: half-precision scale and offset of a block; s, o: integer scale and offset of a part of a block.
//
//   format  numbers  bytes  value            parts
//   Q4_0        32     18   d (q - 8)
//   Q4_1        32     20   d q + m
//   Q5_0        32     22   d (q - 16)
//   Q5_1        32     24   d q + m
//   Q8_0        32     34   d q              q signed
//   Q2_K       256     84   d s q - m o      16 of 16, s and o of 4 bits
//   Q3_K       256    110   d (s - 32) (q - 4)  16 of 16, s of 6 bits
//   Q4_K       256    144   d s q - m o      8 of 32, s and o of 6 bits
//   Q5_K       256    176   d s q - m o      8 of 32, s and o of 6 bits
//   Q6_K       256    210   d s (q - 32)     16 of 16, s signed, of 8 bits

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tinyserve {

enum class BlockFormat : uint8_t { kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ2K, kQ3K, kQ4K, kQ5K, kQ6K };
constexpr int kNumBlockFormats = 10;

struct BlockLayout {
  std::string_view name;  ///< "Q4_K"
  int32_t values = 0;     ///< numbers in a block
  int32_t bytes = 0;      ///< bytes of a block
};

constexpr BlockLayout block_layout(BlockFormat format) {
  constexpr BlockLayout kLayouts[kNumBlockFormats] = {
      {"Q4_0", 32, 18},  {"Q4_1", 32, 20},   {"Q5_0", 32, 22},   {"Q5_1", 32, 24},   {"Q8_0", 32, 34},
      {"Q2_K", 256, 84}, {"Q3_K", 256, 110}, {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210},
  };
  return kLayouts[static_cast<int>(format)];
}

/// out[num_blocks * values]: the numbers of `num_blocks` whole blocks at `blocks`, which may be unaligned.
void dequantize(BlockFormat format, const std::byte* blocks, int64_t num_blocks, float* out);

}  // namespace tinyserve
