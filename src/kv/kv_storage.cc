#include "kv/kv_storage.h"

#include "base/check.h"

namespace tinyserve {

KvStorage::KvStorage(ops::Ops& ops, const KvShape& shape, int32_t page_size, int32_t num_pages) : ops_(ops) {
  TS_CHECK(page_size > 0 && num_pages > 0 && shape.num_layers > 0 && shape.kv_heads > 0 && shape.head_dim > 0);
  ops::KvLayer layer{.dtype = shape.dtype,
                     .num_pages = num_pages,
                     .kv_heads = shape.kv_heads,
                     .page_size = page_size,
                     .head_dim = shape.head_dim};
  const size_t bytes = static_cast<size_t>(layer.page_elements()) * num_pages * dtype_bytes(shape.dtype);
  memory_.reserve(size_t{2} * shape.num_layers);
  for (int32_t i = 0; i < shape.num_layers; ++i) {
    layer.k = memory_.emplace_back(ops.allocate(bytes))->data;
    layer.v = memory_.emplace_back(ops.allocate(bytes))->data;
    layers_.push_back(layer);
    const auto page_bytes = static_cast<int64_t>(bytes) / num_pages;
    tensors_.push_back({layer.k, page_bytes});
    tensors_.push_back({layer.v, page_bytes});
  }
}

void KvStorage::copy_pages(std::span<const std::pair<int32_t, int32_t>> pairs,
                           const std::function<void(size_t layer)>& before_layer) const {
  if (pairs.empty()) return;
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (before_layer) before_layer(i);
    ops_.copy_pages(layers_[i], pairs);
  }
}

}  // namespace tinyserve
