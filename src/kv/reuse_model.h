#pragma once
// What an unreferenced page is worth keeping for, measured: how soon pages of its kind were asked for again.
//
// f4 of ALGORITHMS section 2, the exponentially decayed count of accesses, supposes that the chance of another access
// falls with age at one rate known beforehand. Here that chance is measured. Pages are told apart by kind (how often
// they have been used; prompt or answer), time is counted in pages written, and for each kind and age two sums are kept:
// pages that were that old, and pages of them that were asked for again then (evicted ones included, as long as their
// names are remembered). Their ratio is the hazard h(age). The worth of a page is the best ratio of expected uses to
// expected time held, over all times t one could go on holding it:
//
//   value(age) = max_t  P(used before age + t | unused at age)  /  E[min(time to use, t)]
//
// which is the index by which pages that come back at random times are best ranked when space is short (Gittins). With
// nothing measured the hazard is 1/age, which orders pages as LRU does.

#include <array>
#include <cstdint>
#include <vector>

namespace tinyserve {

/// Single threaded; memory and time do not depend on the number of pages.
class ReuseModel {
 public:
  static constexpr int32_t kKinds = 16;         ///< see kind()
  static constexpr int32_t kAges = 256;         ///< epochs told apart; older pages count as kAges - 1 old
  static constexpr int32_t kEpochsPerPool = 16; ///< epochs in which as many pages are written as the pool has

  explicit ReuseModel(int32_t num_pages);

  /// Kind of a page that has been used `uses` >= 1 times, the writing of it included.
  static uint8_t kind(int32_t uses, bool answer) { return static_cast<uint8_t>((answer ? 8 : 0) + (uses < 8 ? uses - 1 : 7)); }
  static int32_t uses(uint8_t kind) { return kind % 8 + 1; }

  /// A page has been written; true when an epoch ended, so that all ages and values have changed.
  bool advance();
  uint32_t epoch() const { return epoch_; }
  /// Age in epochs of what began to wait in epoch `since`, at most kAges - 1.
  int32_t age(uint32_t since) const {
    const uint32_t epochs = epoch_ - since;
    return epochs < kAges ? static_cast<int32_t>(epochs) : kAges - 1;
  }

  /// A page of this kind begins to wait for its next use, now.
  void wait(uint8_t kind) { ++waiting_[kind][epoch_ % kAges]; }
  /// What has waited since then is used again.
  void reused(uint8_t kind, uint32_t since);
  /// What has waited since then is not followed any longer.
  void lost(uint8_t kind, uint32_t since);

  /// Expected uses of a page in the time in which as many pages are written as the pool has; >= 0.
  float value(uint8_t kind, int32_t age) const { return values_[kind][bucket_[age]]; }

  /// Ages are put into buckets that widen with age. For those who keep pages sorted:
  static constexpr int32_t kBuckets = 36;
  int32_t bucket(int32_t age) const { return bucket_[age]; }
  int32_t num_buckets() const { return num_buckets_; }
  int32_t bucket_begin(int32_t bucket) const { return begin_[bucket]; }  ///< ages [begin(b), begin(b + 1))
  float bucket_value(uint8_t kind, int32_t bucket) const { return values_[kind][bucket]; }

 private:
  using Table = std::array<std::array<float, kBuckets>, kKinds>;
  int32_t& cell(uint8_t kind, uint32_t since) { return waiting_[kind][(epoch_ - static_cast<uint32_t>(age(since))) % kAges]; }
  void estimate();

  const int32_t pages_per_epoch_;
  const float prior_pages_;  // weight of what is believed beforehand, in pages observed for an epoch
  uint32_t epoch_ = 0;
  int32_t pages_ = 0;  // written in this epoch
  int32_t num_buckets_ = 0;
  std::array<uint8_t, kAges> bucket_;
  std::array<int32_t, kBuckets + 1> begin_;
  std::vector<std::array<int32_t, kAges>> waiting_;  // [kKinds] pages that began to wait in an epoch (modulo kAges)
  Table observed_{}, reused_{};                      // page epochs seen at that age; of them, ended by a use
  Table values_{};
};

}  // namespace tinyserve
