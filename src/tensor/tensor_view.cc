#include "tensor/tensor_view.h"

#include <cstring>

namespace tinyserve {

std::string shape_string(const Shape& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

void TensorView::read(int64_t begin, int64_t count, float* out) const {
  if (count == 0) return;  // memcpy takes no null, not even for nothing
  const std::byte* p = data + offset_bytes(begin);
  if (blocks) {
    dequantize(*blocks, p, count / block_layout(*blocks).values, out);
    return;
  }
  if (dtype == DType::kF32) {
    std::memcpy(out, p, static_cast<size_t>(count) * 4);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, p + 2 * i, 2);
    out[i] = dtype == DType::kBF16 ? to_float(BFloat16{bits}) : to_float(Float16{bits});
  }
}

}  // namespace tinyserve
