#include "kv/page_pool.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "base/thread_pool.h"
#include "kv/kv_storage.h"
#include "kv/page_table.h"

namespace tinyserve {
namespace {

std::vector<PageRef> take(PagePool& pool, int32_t count) {
  std::vector<PageRef> refs;
  EXPECT_TRUE(pool.allocate({.count = count}, refs));
  return refs;
}

TEST(PagePool, GivesDistinctPagesUntilNoneIsFree) {
  PagePool pool(10);
  std::vector<PageRef> refs = take(pool, 10);
  std::set<int32_t> pages;
  for (PageRef& ref : refs) pages.insert(ref.page());
  EXPECT_EQ(pages.size(), 10u);
  EXPECT_EQ(pool.num_free(), 0);
  std::vector<PageRef> more;
  EXPECT_FALSE(pool.allocate({.count = 1}, more));
  EXPECT_TRUE(more.empty());
  refs[3].reset();
  EXPECT_FALSE(pool.allocate({.count = 2}, more));  // all or nothing
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(pool.allocate({.count = 1}, more));
  EXPECT_EQ(more[0].page(), 3);
}

TEST(PagePool, APageIsFreeWhenTheLastReferenceGoes) {
  PagePool pool(2);
  PageRef a = std::move(take(pool, 1)[0]);
  PageRef b = pool.share(a.page()), c = pool.share(a.page());
  EXPECT_EQ(pool.ref_count(a.page()), 3);
  a.reset();
  b = std::move(c);  // gives up what it held
  EXPECT_EQ(pool.num_used(), 1);
  b.reset();
  EXPECT_EQ(pool.num_used(), 0);
  pool.check_invariants();
}

TEST(PagePool, HeatCountsUsesAndDecaysWhileFree) {
  PagePool pool(4, {.heat_half_life = 10});
  std::vector<PageRef> refs = take(pool, 2);
  const int32_t page = refs[0].page(), other = refs[1].page();
  pool.keep(page), pool.keep(other);
  EXPECT_EQ(pool.heat(page), 1);
  for (int i = 0; i < 20; ++i) pool.tick();
  EXPECT_EQ(pool.heat(page), 1) << "stands still while used";
  refs[0].reset();
  for (int i = 0; i < 10; ++i) pool.tick();
  EXPECT_FLOAT_EQ(pool.heat(page), 0.5);
  refs[0] = pool.share(page);
  EXPECT_FLOAT_EQ(pool.heat(page), 1.5);
  refs.clear();
  const double a = pool.heat_time(page), b = pool.heat_time(other);
  EXPECT_GT(a, b) << "hotter pages come later";
  for (int i = 0; i < 7; ++i) pool.tick();
  EXPECT_EQ(pool.heat_time(page), a) << "the order does not change with time";
  EXPECT_FLOAT_EQ(pool.heat(page), std::exp2((a - pool.now()) / 10));
}

TEST(PagePool, RelocationTakesEverythingAlong) {
  PagePool pool(8);
  std::vector<PageRef> refs;
  ASSERT_TRUE(pool.allocate({.count = 3, .sequence = 7}, refs));
  const int32_t from = refs[1].page();
  pool.keep(from);
  PageRef second = pool.share(from);
  pool.relocate(from, 6);
  refs[1].retarget(6), second.retarget(6);
  EXPECT_EQ(pool.owner(6), 7u);
  EXPECT_EQ(pool.ref_count(6), 2);
  EXPECT_EQ(pool.heat(6), 2);
  EXPECT_EQ(pool.state(from), PageState::kEmpty);
  pool.check_invariants();
  refs.clear(), second.reset();
  EXPECT_EQ(pool.state(6), PageState::kCached);
  EXPECT_EQ(pool.num_cached(), 1);
  pool.check_invariants();
}

TEST(PagePool, CountsGrowthInPlace) {
  PagePool pool(16, {.policy = "first_fit"});
  std::vector<PageRef> a, b;
  ASSERT_TRUE(pool.allocate({.count = 2, .sequence = 1}, a));
  const auto grow = [&](std::vector<PageRef>& refs, uint64_t uid) {
    std::vector<int32_t> pages;
    for (const PageRef& ref : refs) pages.push_back(ref.page());
    ASSERT_TRUE(pool.allocate({.count = 1, .sequence_pages = pages, .sequence = uid}, refs));
  };
  grow(a, 1);
  ASSERT_TRUE(pool.allocate({.count = 2, .sequence = 2}, b));
  grow(a, 1);
  EXPECT_EQ(pool.stats().growths, 2u);
  EXPECT_EQ(pool.stats().contiguous_growths, 1u);
}

TEST(PagePool, TellsWhoseContentIsOverwritten) {
  struct Listener : EvictionListener {
    std::vector<int32_t> evicted;
    void on_evict(int32_t page) override { evicted.push_back(page); }
  } listener;
  PagePool pool(3);
  pool.set_listener(&listener);
  std::vector<PageRef> refs = take(pool, 3);
  pool.keep(1);
  refs.clear();
  EXPECT_TRUE(listener.evicted.empty());
  refs = take(pool, 3);
  EXPECT_EQ(listener.evicted, std::vector<int32_t>{1});
  EXPECT_FALSE(pool.kept(1));
}

/// Random operations against a model of plain sets.
RC_GTEST_PROP(PagePoolProperty, BooksAgreeAfterAnyOperations, ()) {
  const int32_t n = *rc::gen::inRange(1, 200);
  const auto policies = placement_names();
  const std::string policy(policies[*rc::gen::inRange<size_t>(0, policies.size())]);
  RC_LOG() << policy << " over " << n << " pages\n";
  PagePool pool(n, {.policy = policy, .heat_half_life = 5});
  struct Listener : EvictionListener {
    std::set<int32_t> kept;
    void on_evict(int32_t page) override { RC_ASSERT(kept.erase(page) == 1u); }
  } listener;
  pool.set_listener(&listener);
  std::vector<PageRef> refs;
  std::vector<int32_t> counts(n, 0);
  const auto operations = *rc::gen::container<std::vector<std::pair<int, int>>>(
      rc::gen::pair(rc::gen::inRange(0, 6), rc::gen::inRange(0, 1000)));
  for (const auto& [kind, argument] : operations) {
    const int32_t page = argument % n;
    if (kind == 0) {
      const int32_t count = argument % (n + 2);
      const size_t before = refs.size();
      const bool fits = count <= pool.num_free();
      RC_ASSERT(pool.allocate({.count = count}, refs) == fits);
      RC_ASSERT(refs.size() == before + (fits ? count : 0));
      for (size_t i = before; i < refs.size(); ++i) RC_ASSERT(counts[refs[i].page()]++ == 0);
    } else if (kind == 1 && (counts[page] > 0 || listener.kept.contains(page))) {
      refs.push_back(pool.share(page));
      ++counts[page];
    } else if (kind == 2 && counts[page] > 0) {
      pool.keep(page);
      listener.kept.insert(page);
    } else if (kind == 3) {
      pool.forget(page);
      listener.kept.erase(page);
    } else if (kind >= 4 && !refs.empty()) {
      std::swap(refs[argument % refs.size()], refs.back());
      --counts[refs.back().page()];
      refs.pop_back();
    }
    pool.check_invariants();
    for (int32_t p = 0; p < n; ++p) {
      RC_ASSERT(pool.ref_count(p) == counts[p]);
      RC_ASSERT(pool.kept(p) == listener.kept.contains(p));
    }
  }
}

TEST(PageTable, ReplacesAppendsAndReleases) {
  PagePool pool(8);
  PageTable a(pool), b(pool);
  std::vector<PageRef> refs = take(pool, 4);
  for (int32_t i = 0; i < 3; ++i) a.set(i, std::move(refs[i]));
  const uint64_t version = a.version();
  a.set(3, std::move(refs[3]));
  EXPECT_EQ(a.version(), version) << "appending leaves copies of the beginning good";
  b.share_all(a);
  EXPECT_EQ(pool.ref_count(a[2]), 2);
  const int32_t shared = b[3];
  b.set(3, std::move(take(pool, 1)[0]));
  EXPECT_NE(b.version(), 0u);
  EXPECT_EQ(pool.ref_count(shared), 1);
  a.clear();
  EXPECT_EQ(pool.num_used(), 4);
  b.clear();
  EXPECT_EQ(pool.num_used(), 0);
}

TEST(PageTable, ItsEndIsEvictedBeforeItsBeginning) {
  PagePool pool(3);
  PageTable table(pool);
  std::vector<PageRef> refs = take(pool, 3);
  for (int32_t i = 0; i < 3; ++i) {
    pool.keep(refs[i].page());
    table.set(i, std::move(refs[i]));
  }
  const std::vector<int32_t> chain(table.pages().begin(), table.pages().end());
  table.clear();
  EXPECT_EQ(take(pool, 1)[0].page(), chain[2]);
}

TEST(KvStorage, HasTheShapeAskedForAndCopiesAllLayers) {
  ThreadPool threads(1);
  auto ops = ops::make_ops("ref", threads);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const KvShape shape{.num_layers = 3, .kv_heads = 2, .head_dim = 8, .dtype = dtype};
    KvStorage storage(*ops, shape, 4, 5);
    ASSERT_EQ(storage.layers().size(), 3u);
    const size_t page_bytes = 2 * 4 * 8 * dtype_bytes(dtype);
    for (size_t l = 0; l < 3; ++l) {
      const ops::KvLayer& layer = storage.layers()[l];
      EXPECT_EQ(layer.page_elements() * dtype_bytes(dtype), page_bytes);
      EXPECT_EQ(layer.num_pages, 5);
      for (size_t i = 0; i < 5 * page_bytes; ++i) ASSERT_EQ(layer.k[i], std::byte{0});
      std::fill_n(layer.k + 1 * page_bytes, page_bytes, std::byte(l + 1));
      std::fill_n(layer.v + 1 * page_bytes, page_bytes, std::byte(l + 101));
    }
    const std::pair<int32_t, int32_t> pairs[] = {{1, 4}, {1, 0}};
    storage.copy_pages(pairs);
    for (size_t l = 0; l < 3; ++l) {
      for (size_t page : {0, 4}) {
        EXPECT_EQ(storage.layers()[l].k[page * page_bytes], std::byte(l + 1));
        EXPECT_EQ(storage.layers()[l].v[(page + 1) * page_bytes - 1], std::byte(l + 101));
      }
      EXPECT_EQ(storage.layers()[l].k[2 * page_bytes], std::byte{0});
    }
  }
}

}  // namespace
}  // namespace tinyserve
