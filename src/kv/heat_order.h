#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kv/page_lists.h"
#include "kv/reuse_model.h"

namespace tinyserve {

/// Unreferenced pages by what they are worth (reuse_model.h): one list for each kind and epoch since which they wait, so
/// that nothing moves while pages age. add, remove and coldest are O(1), plus O(kinds x ages) once an epoch.
class HeatOrder {
 public:
  HeatOrder(int32_t num_pages, const ReuseModel& model);

  /// `kind`: or kNoUse for what nobody can ask for any more.
  void add(int32_t page, uint8_t kind, uint32_t since);
  void remove(int32_t page) { lists_.remove(page); }
  bool contains(int32_t page) const { return lists_.contains(page); }
  /// The page that is worth least, the one that waits longest among equals; -1: there is none.
  int32_t coldest();
  /// The next page in order after one that is in it, added as said; -1: there is none.
  int32_t after(int32_t page, uint8_t kind, uint32_t since) const;
  /// The model's epoch has ended: to be called before anything else.
  void on_epoch();

  static constexpr uint8_t kNoUse = ReuseModel::kKinds;

 private:
  int32_t list(uint8_t kind, uint32_t epoch) const {
    return kind * ReuseModel::kAges + static_cast<int32_t>(epoch % ReuseModel::kAges);
  }
  int32_t first_of(uint8_t kind, int32_t bucket, int32_t younger_than = ReuseModel::kAges) const;

  static constexpr int32_t kWorthless = ReuseModel::kKinds * ReuseModel::kAges;  // the list of kNoUse
  const ReuseModel& model_;
  PageLists lists_;
  std::vector<std::pair<uint8_t, uint8_t>> ranking_;  // (kind, bucket), the least worth first
  std::array<std::array<uint16_t, ReuseModel::kBuckets>, ReuseModel::kKinds> rank_{};
  size_t first_ = 0;  // nothing is in what ranks before
};

}  // namespace tinyserve
