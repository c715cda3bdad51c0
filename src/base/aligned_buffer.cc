#include "base/aligned_buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace tinyserve {
namespace {
constexpr size_t kMapFrom = size_t{2} << 20;
}

AlignedBuffer::AlignedBuffer(size_t size_bytes) : size_(size_bytes) {
  if (size_ == 0) return;
  if (size_ >= kMapFrom) {
    void* p = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
      throw InputError(fmt::format("the system refuses {:.1f} MiB of memory; ask for less (see `tinyserve info`)",
                                   static_cast<double>(size_) / (1 << 20)));
    ::madvise(p, size_, MADV_HUGEPAGE);
    data_ = static_cast<std::byte*>(p);
  } else {
    data_ = static_cast<std::byte*>(std::aligned_alloc(64, (size_ + 63) / 64 * 64));
    if (!data_) throw InputError(fmt::format("the system refuses {} bytes of memory", size_));
    std::memset(data_, 0, size_);
  }
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() {
  if (!data_) return;
  if (size_ >= kMapFrom) ::munmap(data_, size_);
  else std::free(data_);
}

}  // namespace tinyserve
