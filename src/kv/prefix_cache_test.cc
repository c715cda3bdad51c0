#include "kv/prefix_cache.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace tinyserve {
namespace {

PageHash sip_of_counting_bytes(size_t length) {
  std::vector<std::byte> message(length);
  for (size_t i = 0; i < length; ++i) message[i] = std::byte(i);
  return siphash128({0x0706050403020100u, 0x0f0e0d0c0b0a0908u}, message);
}

// The first vectors of the authors' test program for the 128-bit variant (key 00 01 .. 0f, message 00 01 ..).
TEST(PageHash, IsSipHash128) {
  EXPECT_EQ(sip_of_counting_bytes(0), (PageHash{0xe6a825ba047f81a3u, 0x930255c71472f66du}));
  EXPECT_EQ(sip_of_counting_bytes(1), (PageHash{0x44af996bd8c187dau, 0x45fc229b11597634u}));
}

TEST(PageHash, DependsOnKeyParentAndEveryToken) {
  const PageHasher hasher, other;
  std::vector<int32_t> tokens(16);
  std::set<std::pair<uint64_t, uint64_t>> seen;
  auto add = [&](const PageHash& h) { return seen.emplace(h.low, h.high).second; };
  EXPECT_TRUE(add(hasher.chain({}, tokens)));
  EXPECT_TRUE(add(other.chain({}, tokens)));
  EXPECT_TRUE(add(hasher.chain({1, 0}, tokens)));
  EXPECT_TRUE(add(hasher.chain({0, 1}, tokens)));
  for (int32_t& token : tokens) {
    token = 1;
    EXPECT_TRUE(add(hasher.chain({}, tokens)));
  }
  EXPECT_FALSE(add(hasher.chain({}, tokens)));
}

class PrefixCacheTest : public ::testing::Test {
 protected:
  static PageHash name(uint64_t i) { return {i, i * 7}; }
  void insert(uint64_t i, int32_t page) { cache.insert({.name = name(i), .first = true}, page); }
  PagePool pool{8};
  PrefixCache cache{pool};
  std::vector<PageRef> refs;
};

TEST_F(PrefixCacheTest, FindsUsedAndUnreferencedPagesUntilTheyAreEvicted) {
  ASSERT_TRUE(pool.allocate({.count = 3}, refs));
  for (int i = 0; i < 3; ++i) insert(i, refs[i].page());
  const int32_t first = refs[0].page();
  EXPECT_EQ(cache.find(name(0)), first);
  refs.clear();
  EXPECT_EQ(pool.num_cached(), 3);
  EXPECT_EQ(cache.find(name(0)), first);
  PageRef hit = pool.share(first);
  ASSERT_TRUE(pool.allocate({.count = 7}, refs));
  cache.check_invariants();
  EXPECT_EQ(cache.find(name(0)), first);
  EXPECT_EQ(cache.find(name(1)), -1);
  EXPECT_EQ(cache.find(name(2)), -1);
  EXPECT_EQ(cache.size(), 1);
}

TEST_F(PrefixCacheTest, TheFirstPageOfAContentStays) {
  ASSERT_TRUE(pool.allocate({.count = 2}, refs));
  insert(5, refs[0].page());
  insert(5, refs[1].page());
  insert(6, refs[0].page());  // a page has one name
  EXPECT_EQ(cache.find(name(5)), refs[0].page());
  EXPECT_EQ(cache.find(name(6)), -1);
  EXPECT_EQ(cache.size(), 1);
  refs.clear();
  EXPECT_EQ(pool.num_cached(), 1);
  cache.clear();
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_EQ(cache.find(name(5)), -1);
  cache.check_invariants();
  pool.check_invariants();
}

TEST_F(PrefixCacheTest, RandomUseKeepsTheBooks) {
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    const int what = random() % 3;
    if (what == 0 && pool.num_free() > 0) {
      ASSERT_TRUE(pool.allocate({.count = 1}, refs));
      insert(random() % 12, refs.back().page());
    } else if (what == 1) {
      const int32_t page = cache.find(name(random() % 12));
      if (page >= 0) refs.push_back(pool.share(page));
    } else if (!refs.empty()) {
      std::swap(refs[random() % refs.size()], refs.back());
      refs.pop_back();
    }
    pool.check_invariants();
    cache.check_invariants();
  }
}

}  // namespace
}  // namespace tinyserve
