#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tensor/block_format.h"
#include "tensor/dtype.h"

namespace tinyserve {

using Shape = std::vector<int64_t>;

inline int64_t num_elements(const Shape& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}
std::string shape_string(const Shape& shape);  ///< "[4096, 11008]"

/// Dense row-major data owned by somebody else (usually a mapped checkpoint, so data may be unaligned).
struct TensorView {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;
  /// Of a quantised tensor, whose rows are whole blocks; dtype then says nothing.
  std::optional<BlockFormat> blocks;

  int64_t size() const { return num_elements(shape); }
  size_t size_bytes() const { return offset_bytes(size()); }
  /// Where element `begin` lies; of a quantised tensor, one that begins a block.
  size_t offset_bytes(int64_t begin) const {
    if (!blocks) return static_cast<size_t>(begin) * dtype_bytes(dtype);
    const BlockLayout layout = block_layout(*blocks);
    return static_cast<size_t>(begin / layout.values * layout.bytes);
  }
  /// Converts elements [begin, begin + count), whole blocks of a quantised tensor, to F32.
  void read(int64_t begin, int64_t count, float* out) const;
};

}  // namespace tinyserve
