#pragma once
// Moves the bytes of pages between the cache and host memory, as few and as large copies as their places allow.

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "kv/kv_storage.h"
#include "kv/tiers/tier_stats.h"
#include "ops/ops.h"

namespace tinyserve {

/// Host memory for `num_slots` pages, laid out as the cache is: tensor after tensor, each [num_slots, page of that tensor].
/// Consecutive slots are one piece of memory per tensor. Not resident until written.
class HostArea {
 public:
  HostArea(int32_t num_slots, std::span<const PageTensor> tensors) : num_slots_(num_slots) {
    int64_t bytes = 0;
    for (const PageTensor& t : tensors) {
      pieces_.push_back({bytes, t.page_bytes});
      bytes += num_slots * t.page_bytes;
    }
    memory_ = AlignedBuffer(static_cast<size_t>(bytes));
  }
  std::byte* at(int32_t tensor, int32_t slot) { return memory_.data() + pieces_[tensor].begin + slot * pieces_[tensor].bytes; }
  int32_t num_slots() const { return num_slots_; }

 private:
  struct Piece {
    int64_t begin = 0, bytes = 0;  // of the tensor; of a page in it
  };
  int32_t num_slots_;
  std::vector<Piece> pieces_;
  AlignedBuffer memory_;
};

/// From a page of the cache to a slot of an area, or back.
struct PageMove {
  int32_t page = 0, slot = 0;
};

class PageCopier {
 public:
  /// The backend and the tensors' memory outlive it.
  PageCopier(ops::Ops& ops, std::span<const PageTensor> tensors);

  std::span<const PageTensor> tensors() const { return tensors_; }
  int32_t num_tensors() const { return static_cast<int32_t>(tensors_.size()); }
  int64_t page_bytes() const { return page_bytes_; }  ///< of a page, all tensors

  /// Copies pages to slots. Consecutive moves whose pages and slots both go up by one are one copy per tensor, so moves
  /// sorted by page are best.
  TransferStats down(std::span<const PageMove> moves, HostArea& to) { return copy(moves, to, true); }
  TransferStats up(std::span<const PageMove> moves, HostArea& from) { return copy(moves, from, false); }

  /// One page as one piece of memory of page_bytes(), tensor after tensor: what the disk holds. Image i is at
  /// images + i * stride.
  TransferStats to_images(std::span<const int32_t> pages, std::byte* images, int64_t stride);
  TransferStats from_images(std::span<const int32_t> pages, const std::byte* images, int64_t stride);
  void slot_to_image(HostArea& from, int32_t slot, std::byte* image) const;

  /// What one copy of so many bytes from the backend's memory to the host's reaches: the limit of all of the above.
  /// Allocates both sides for the moment.
  double large_copy_gb_per_s(int64_t bytes);

 private:
  TransferStats copy(std::span<const PageMove> moves, HostArea& area, bool down);
  HostArea& bounce();

  ops::Ops& ops_;
  std::vector<PageTensor> tensors_;
  int64_t page_bytes_ = 0;
  std::vector<HostArea> bounce_;  // none or one: where runs land before they are cut into images, off the host
};

}  // namespace tinyserve
