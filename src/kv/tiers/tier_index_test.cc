#include "kv/tiers/tier_index.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <deque>
#include <map>
#include <random>

namespace tinyserve {
namespace {

PageHash name(uint64_t i) { return {i * 0x9E3779B97F4A7C15u, i}; }

std::vector<int32_t> put(TierIndex& index, std::vector<uint64_t> ids) {
  std::vector<SlotRef> refs;
  std::vector<int32_t> slots;
  index.allocate(static_cast<int32_t>(ids.size()), refs);
  for (size_t i = 0; i < refs.size(); ++i) {
    EXPECT_TRUE(index.insert(name(ids[i]), refs[i].slot()));
    slots.push_back(refs[i].slot());
  }
  TierIndex::release(refs);
  return slots;
}

TEST(TierIndex, GivesEmptySlotsThenTheOldestPages) {
  std::vector<uint64_t> gone;
  TierIndex index(6, 4, [&](int32_t, const PageHash& n) { gone.push_back(n.high); });
  EXPECT_EQ(put(index, {1, 2, 3}), (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(put(index, {4}), std::vector<int32_t>{3});
  EXPECT_EQ(put(index, {5, 6}), (std::vector<int32_t>{1, 2})) << "the end of the first chain, by number";
  EXPECT_EQ(gone, (std::vector<uint64_t>{3, 2}));
  index.set_available(6);
  EXPECT_EQ(put(index, {7}), std::vector<int32_t>{4});
  index.pin(index.find(name(1))).reset();  // used
  EXPECT_EQ(put(index, {8, 9, 10}).size(), 3u);
  EXPECT_GE(index.find(name(1)), 0);
  EXPECT_EQ(index.find(name(4)), -1);
  index.check_invariants();
}

TEST(TierIndex, PinnedPagesStay) {
  TierIndex index(3, 3);
  put(index, {1, 2, 3});
  SlotRef held = index.pin(index.find(name(2)));
  EXPECT_EQ(put(index, {4, 5, 6}).size(), 2u);
  EXPECT_EQ(index.find(name(2)), held.slot());
  index.forget(held.slot());
  EXPECT_EQ(index.find(name(2)), -1);
  EXPECT_EQ(index.num_empty(), 0) << "still held";
  held.reset();
  EXPECT_EQ(index.num_empty(), 1);
  index.check_invariants();
}

/// Against a list in order of use.
RC_GTEST_PROP(TierIndexProperty, IsALeastRecentlyUsedCache, ()) {
  std::mt19937 random(*rc::gen::arbitrary<uint32_t>());
  const int32_t slots = 1 + random() % 100;
  TierIndex index(slots, slots);
  std::deque<uint64_t> order;  // the oldest first
  std::map<uint64_t, SlotRef> pins;
  uint64_t next = 1;
  for (int op = 0; op < 300; ++op) {
    switch (random() % 5) {
      case 0:
      case 1: {
        std::vector<uint64_t> ids(1 + random() % 8);
        for (uint64_t& id : ids) id = next++;
        const auto got = put(index, ids).size();
        const size_t free = slots - pins.size();
        RC_ASSERT(got == std::min(ids.size(), free));
        size_t unpinned = 0;
        for (uint64_t id : order) unpinned += !pins.contains(id);
        for (size_t excess = unpinned + got > free ? unpinned + got - free : 0; excess > 0; --excess)
          order.erase(std::find_if(order.begin(), order.end(), [&](uint64_t id) { return !pins.contains(id); }));
        for (size_t i = got; i-- > 0;) order.push_back(ids[i]);
        break;
      }
      case 2:
        if (!order.empty()) {
          const uint64_t id = order[random() % order.size()];
          const int32_t slot = index.find(name(id));
          RC_ASSERT(slot >= 0);
          if (!pins.contains(id)) pins.emplace(id, index.pin(slot));
        }
        break;
      case 3:
        if (!pins.empty()) {
          const auto at = std::next(pins.begin(), random() % pins.size());
          std::erase(order, at->first);
          order.push_back(at->first);
          pins.erase(at);
        }
        break;
      default:
        if (!order.empty() && random() % 4 == 0) {
          const uint64_t id = order[random() % order.size()];
          if (pins.contains(id)) break;
          index.forget(index.find(name(id)));
          std::erase(order, id);
        }
    }
    index.check_invariants();
    RC_ASSERT(index.num_pages() == static_cast<int32_t>(order.size()));
    for (uint64_t id : order) RC_ASSERT(index.find(name(id)) >= 0);
  }
  pins.clear();
}

}  // namespace
}  // namespace tinyserve
