#pragma once
#include <cstdint>
#include <string>
#include <vector>

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

  int64_t size() const { return num_elements(shape); }
  size_t size_bytes() const { return static_cast<size_t>(size()) * dtype_bytes(dtype); }
  /// Converts elements [begin, begin + count) to F32.
  void read(int64_t begin, int64_t count, float* out) const;
};

}  // namespace tinyserve
