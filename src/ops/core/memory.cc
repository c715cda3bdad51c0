// Host memory: what backends share that do not bring memory of their own.
#include <cstring>

#include "base/aligned_buffer.h"
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

}  // namespace tinyserve::ops
