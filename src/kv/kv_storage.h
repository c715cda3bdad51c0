#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kv/kv_shape.h"
#include "ops/ops.h"

namespace tinyserve {

/// One tensor of the cache: page p is the page_bytes at data + p * page_bytes, in the backend's memory.
struct PageTensor {
  std::byte* data = nullptr;
  int64_t page_bytes = 0;
};

/// The memory of the KV cache, from the backend: for each layer K and V, both [num_pages, kv_heads, page_size,
/// head_dim], zero, and the codes of layers that have some. Host memory is not resident until written.
class KvStorage {
 public:
  /// The backend outlives it. Throws InputError when there is not enough memory.
  KvStorage(ops::Ops& ops, const KvShape& shape, int32_t page_size, int32_t num_pages, const CodeShape& codes = {});

  KvStorage(const KvStorage&) = delete;
  KvStorage& operator=(const KvStorage&) = delete;

  std::span<const ops::KvLayer> layers() const { return layers_; }
  /// Everything that a page's content consists of: K, V, K, V, ... of the layers, then
  /// codes. Whoever moves pages elsewhere moves these.
  std::span<const PageTensor> tensors() const { return tensors_; }
  /// Copies whole pages, (source, destination), in all layers. Sources and destinations are disjoint. `before_layer`, for
  /// tests, is called before each layer's copies and may throw.
  void copy_pages(std::span<const std::pair<int32_t, int32_t>> pairs,
                  const std::function<void(size_t layer)>& before_layer = {}) const;

 private:
  ops::Ops& ops_;
  std::byte* add(int64_t page_bytes, int32_t num_pages);
  void add_codes(const KvShape& shape, int32_t num_pages, const CodeShape& codes);

  std::vector<std::unique_ptr<ops::Memory>> memory_;  // one to a tensor of K or V, one for all codes
  std::vector<ops::KvLayer> layers_;
  std::vector<PageTensor> tensors_;
};

}  // namespace tinyserve
