// What backends share that do not bring their own: host memory, and the answer to operations that are optional.
#include <cstring>

#include "base/aligned_buffer.h"
#include "base/check.h"
#include "ops/ops.h"

namespace tinyserve::ops {
namespace {

struct HostMemory : Memory {
  explicit HostMemory(size_t size_bytes) : buffer(size_bytes) {
    data = buffer.data();
    size = size_bytes;
  }
  AlignedBuffer buffer;
};

}  // namespace

std::unique_ptr<Memory> Ops::allocate(size_t size_bytes) { return std::make_unique<HostMemory>(size_bytes); }
// Nothing may be copied from or to nowhere (a step without logits); memcpy does not like that.
void Ops::upload(void* to, const void* from, size_t size_bytes) {
  if (size_bytes > 0) std::memcpy(to, from, size_bytes);
}
void Ops::download(void* to, const void* from, size_t size_bytes) {
  if (size_bytes > 0) std::memcpy(to, from, size_bytes);
}
TensorView Ops::place(const TensorView& table, std::unique_ptr<Memory>&) { return table; }
BatchLayout Ops::begin_step(const BatchLayout& host) { return host; }
void Ops::encode_pages(const EncodeArgs&) { TS_CHECK(false, "this backend has no selection"); }
void Ops::sparse_attention(const SparseAttentionArgs&, const BatchLayout&) {
  TS_CHECK(false, "this backend has no selection");
}

void copy_codes(const KvLayer& cache, int64_t from, int64_t to) {
  const auto copy = [&](auto* data, int64_t bytes) {
    if (!data) return;
    auto* raw = reinterpret_cast<std::byte*>(data);
    std::memcpy(raw + to * bytes, raw + from * bytes, static_cast<size_t>(bytes));
  };
  const int64_t heads = cache.kv_heads;
  copy(cache.codes.coarse, heads * coarse_bytes(cache.head_dim));
  copy(cache.codes.fine, heads * fine_bytes(cache.head_dim));
  copy(cache.codes.mean, heads * mean_bytes(cache.head_dim));
  copy(cache.codes.values, heads * value_bytes(cache.head_dim));
}

}  // namespace tinyserve::ops
