#pragma once
#include <cstdint>

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

}  // namespace tinyserve
