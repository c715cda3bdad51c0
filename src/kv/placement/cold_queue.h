#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace tinyserve {

/// Free cached pages, coldest first: by heat time (PagePool::heat_time) in buckets, inside a bucket by arrival. Buckets
/// are `width` steps wide, 1024 of them, ending a little in the future (that is where hot pages are); pages older than
/// all that share the first, in order. Everything is O(1) a page.
class ColdQueue {
 public:
  ColdQueue(int32_t num_pages, double width);

  /// `now` never decreases.
  void add(int32_t page, double heat_time, double now);
  void remove(int32_t page);
  bool contains(int32_t page) const { return next_[page] >= 0; }
  /// The coldest page, or -1.
  int32_t first() const;
  /// The next warmer page, or -1.
  int32_t after(int32_t page) const;
  /// TS_CHECKs that exactly the pages with state 1 are queued. For tests.
  void check_invariants(std::span<const uint8_t> state) const;

 private:
  static constexpr int32_t kBuckets = 1024, kFuture = 256;
  int32_t head(int64_t bucket) const { return num_pages_ + static_cast<int32_t>(bucket & (kBuckets - 1)); }
  void advance(int64_t base);

  int32_t num_pages_;
  double width_;
  mutable int64_t lowest_ = 0;  // no bucket before it has pages
  int64_t base_ = 0;  // the first bucket; those of [base_, base_ + kBuckets) exist
  std::vector<int32_t> previous_, next_;  // [num_pages + kBuckets] circular lists; next is -1 for pages in none
};

}  // namespace tinyserve
