#pragma once
#include <cstdint>
#include <vector>

#include "ops/selection_layout.h"
#include "tensor/dtype.h"

namespace tinyserve {

/// Shape of the KV cache the model wants: one KvLayer per layer, all alike.
struct KvShape {
  int32_t num_layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  DType dtype = DType::kBF16;
  /// Bytes of K and V of one token over all layers.
  int64_t token_bytes() const { return int64_t{2} * num_layers * kv_heads * head_dim * dtype_bytes(dtype); }
};

/// The codes kept beside K and V (ops/selection_layout.h): of which layers, and whether of values too.
struct CodeShape {
  std::vector<bool> layers;  ///< [num_layers], or empty: none
  bool values = true;
  /// Bytes of a page over all layers.
  int64_t page_bytes(const KvShape& shape) const {
    const int32_t d = shape.head_dim;
    const int64_t head = ops::coarse_bytes(d) + ops::fine_bytes(d) + ops::mean_bytes(d) + (values ? ops::value_bytes(d) : 0);
    int64_t coded = 0;
    for (const bool layer : layers) coded += layer;
    return coded * shape.kv_heads * head;
  }
};

}  // namespace tinyserve
