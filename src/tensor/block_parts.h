#pragma once
// One block of quantised weights taken apart into small integers, for kernels that multiply codes before they scale:
//   value = (d * scales[part]) * (code - zero) - (m * offsets[part])
// with the names of block_format.h; the blocks of 32 have one part, whose scale and offset are 1 (of Q4_1 and Q5_1,
// whose m is added, -m is the offset). Every product in front of a code is exact in F32, so these are dequantize()'s
// numbers.

#include <cstddef>
#include <cstdint>

#include "tensor/block_format.h"
#include "tensor/dtype.h"

namespace tinyserve {

struct BlockTraits {
  int bits = 0;             ///< of a code; codes are unsigned
  int part = 0;             ///< numbers that share a scale: 16 or 32
  int zero = 0;             ///< code of the number 0 where there is no offset, else 0
  bool has_offset = false;  ///< m and offsets count
  bool has_parts = false;   ///< scales and offsets count: blocks of 256
};

constexpr BlockTraits block_traits(BlockFormat format) {
  constexpr BlockTraits kTraits[kNumBlockFormats] = {
      {4, 32, 8, false, false},   {4, 32, 0, true, false},  {5, 32, 16, false, false}, {5, 32, 0, true, false},
      {8, 32, 128, false, false}, {2, 16, 0, true, true},   {3, 16, 4, false, true},   {4, 32, 0, true, true},
      {5, 32, 0, true, true},     {6, 16, 32, false, true},
  };
  return kTraits[static_cast<int>(format)];
}

struct BlockParts {
  uint8_t codes[256];
  int8_t scales[16];
  int8_t offsets[16];
  Float16 d, m;
};

/// Fills of `out` what block_traits(format) says that counts. `block` may be unaligned.
void take_apart(BlockFormat format, const std::byte* block, BlockParts& out);

}  // namespace tinyserve
