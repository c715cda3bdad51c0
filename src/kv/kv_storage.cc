#include "kv/kv_storage.h"

#include <algorithm>

#include "base/check.h"

namespace tinyserve {

KvStorage::KvStorage(ops::Ops& ops, const KvShape& shape, int32_t page_size, int32_t num_pages, const CodeShape& codes) : ops_(ops) {
  TS_CHECK(page_size > 0 && num_pages > 0 && shape.num_layers > 0 && shape.kv_heads > 0 && shape.head_dim > 0);
  TS_CHECK(codes.layers.empty() || (static_cast<int32_t>(codes.layers.size()) == shape.num_layers && page_size == ops::kCodePage &&
                                    ops::has_codes(shape.head_dim)),
           "codes need pages of 16 and heads that they fit");
  ops::KvLayer layer{.dtype = shape.dtype,
                     .num_pages = num_pages,
                     .kv_heads = shape.kv_heads,
                     .page_size = page_size,
                     .head_dim = shape.head_dim};
  const int64_t page_bytes = layer.page_elements() * static_cast<int64_t>(dtype_bytes(shape.dtype));
  for (int32_t i = 0; i < shape.num_layers; ++i) {
    layer.k = add(page_bytes, num_pages);
    layer.v = add(page_bytes, num_pages);
    layers_.push_back(layer);
  }
  add_codes(shape, num_pages, codes);
}

// All layers' in one piece: only of large pieces does the system make huge pages, and reading codes of scattered pages from small ones
// takes twice the time.
void KvStorage::add_codes(const KvShape& shape, int32_t num_pages, const CodeShape& codes) {
  const int32_t d = shape.head_dim;
  const auto bytes_of = [&](int32_t head) { return int64_t{shape.kv_heads} * head; };
  const auto room_of = [&](int32_t head) { return (bytes_of(head) * num_pages + 63) / 64 * 64; };
  const int64_t layer = room_of(ops::coarse_bytes(d)) + room_of(ops::fine_bytes(d)) + room_of(ops::mean_bytes(d)) +
                        (codes.values ? room_of(ops::value_bytes(d)) : 0);
  const auto coded = std::count(codes.layers.begin(), codes.layers.end(), true);
  if (coded == 0) return;
  std::byte* next = memory_.emplace_back(ops_.allocate(static_cast<size_t>(layer * coded)))->data;
  for (size_t i = 0; i < codes.layers.size(); ++i) {
    if (!codes.layers[i]) continue;
    const auto take = [&](int32_t head) {
      uint8_t* at = reinterpret_cast<uint8_t*>(next);
      tensors_.push_back({next, bytes_of(head)});
      next += room_of(head);
      return at;
    };
    ops::PageCodes& to = layers_[i].codes;
    to.coarse = take(ops::coarse_bytes(d));
    to.fine = take(ops::fine_bytes(d));
    to.mean = take(ops::mean_bytes(d));
    if (codes.values) to.values = reinterpret_cast<uint64_t*>(take(ops::value_bytes(d)));
  }
}

std::byte* KvStorage::add(int64_t page_bytes, int32_t num_pages) {
  std::byte* data = memory_.emplace_back(ops_.allocate(static_cast<size_t>(page_bytes) * num_pages))->data;
  tensors_.push_back({data, page_bytes});
  return data;
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
