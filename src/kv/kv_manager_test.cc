// KvManager against a naive model: whatever is allocated, grown, forked, written, shared, released, cancelled, moved, in
// whatever order, with failing allocations and failing copies in between, every sequence finds its bytes where its table
// says, every name its content, and what is told about fragmentation is what a walk over all pages finds.

#include "kv/kv_manager.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <new>
#include <random>
#include <set>

#include "kv/page_map.h"
#include "kv/page_table.h"

namespace {
thread_local int64_t allocations_left = -1;  // until one fails; -1: none does
}

[[gnu::noinline]] void* operator new(size_t size) {
  if (allocations_left >= 0 && allocations_left-- == 0) throw std::bad_alloc();
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}
// The default one is not in terms of the above under AddressSanitizer, and what it gives must not go to free().
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t&) noexcept { return std::malloc(size ? size : 1); }
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace tinyserve {
namespace {

constexpr int32_t kPageSize = 4;
constexpr int64_t kPageBytes = 1000;
#ifdef TINYSERVE_SANITIZED
constexpr int32_t kCases = 10, kOperations = 1000;
#else
constexpr int32_t kCases = 100, kOperations = 2000;  // times 5 policies: 10^6
#endif

struct FailAllocations {
  explicit FailAllocations(int64_t after) { allocations_left = after; }
  ~FailAllocations() { allocations_left = -1; }
};

/// A sequence and what its pages should hold.
struct Model {
  explicit Model(PagePool& pool, uint64_t id) : table(pool), uid(id) {}
  PageTable table;
  uint64_t uid;
  std::vector<uint64_t> contents;
  std::vector<PageHash> names;  // of its first pages, which are never written again
  int32_t tokens = 0;
};

class Machine {
 public:
  Machine(const KvConfig& config, int32_t num_pages, uint32_t seed)
      : kv_(config, num_pages, kPageSize, kPageBytes), bytes_(num_pages, 0), random_(seed) {}

  void run(int32_t operations) {
    for (int32_t i = 0; i < operations; ++i) {
      switch (random_() % 16) {
        case 0: case 1: admit(); break;
        case 2: case 3: case 4: grow(); break;
        case 5: fork(); break;
        case 6: case 7: write(); break;
        case 8: release(); break;
        case 9: cancel(); break;
        case 10: hold(); break;
        case 11: held_.clear(); break;
        case 12: case 13: compact(); break;
        case 14: relocate(); break;
        case 15: step(); break;
      }
      if (i % 16 == 0) check();
    }
    held_.clear();
    for (int32_t i = 0; i < 60; ++i) compact();
    check();
    sequences_.clear();
    check();
    RC_ASSERT(kv_.pool().num_used() == 0);
  }
  const CompactionStats& stats() const { return kv_.compaction_stats(); }
  int64_t failures() const { return failures_; }

 private:
  PagePool& pool() { return kv_.pool(); }
  Model* any() { return sequences_.empty() ? nullptr : sequences_[random_() % sequences_.size()].get(); }
  int64_t rarely_fails() { return random_() % 8 == 0 ? static_cast<int64_t>(random_() % 4) : -1; }

  /// Pages by the pool's rules; false when too few are free or memory is short, and then nothing has changed.
  bool allocate(Model& s, int32_t count, std::vector<PageRef>& refs) {
    const int32_t free = pool().num_free();
    const size_t before = refs.size();
    bool got = false;
    try {
      const FailAllocations fail(rarely_fails());
      got = pool().allocate({.count = count, .sequence_pages = s.table.pages(), .sequence = s.uid,
                             .expected_pages = static_cast<int32_t>(random_() % 4)}, refs);
    } catch (const std::bad_alloc&) {
      ++failures_;
      RC_ASSERT((pool().num_free() == free && refs.size() == before));
      return false;
    }
    RC_ASSERT(got == (count <= free));
    return got;
  }

  void admit() {
    if (sequences_.size() >= 12) return release();
    auto s = std::make_unique<Model>(pool(), next_uid_++);
    PageHash parent{};
    const int32_t length = 1 + static_cast<int32_t>(random_() % 8);
    std::vector<PageHash> names;
    for (int32_t i = 0; i < length; ++i) {
      const PageHash name{(parent.low * 31 + random_() % 3 + 1) * 0x9E3779B97F4A7C15u, static_cast<uint64_t>(i)};
      names.push_back(parent = name);
    }
    PrefixCache* prefix = kv_.prefix();
    std::vector<PageRef> refs;
    while (prefix && static_cast<int32_t>(refs.size()) < length) {
      const int32_t page = prefix->find(names[refs.size()]);
      if (page < 0) break;
      RC_ASSERT(bytes_[page] == names[refs.size()].low);
      refs.push_back(pool().share(page));
    }
    const auto hits = static_cast<int32_t>(refs.size());
    if (hits < length && !allocate(*s, length - hits, refs)) return;
    for (int32_t i = 0; i < length; ++i) {
      s->table.set(i, std::move(refs[i]));
      s->contents.push_back(names[i].low);
      if (i < hits) continue;
      bytes_[s->table[i]] = names[i].low;
      if (!prefix || random_() % 4 == 0) continue;
      prefix->insert({.name = names[i], .parent = i ? names[i - 1] : PageHash{}, .first = i == 0}, s->table[i]);
    }
    s->names = names;
    s->tokens = length * kPageSize;
    kv_.computed(s->table, hits * kPageSize, (length - hits) * kPageSize);
    sequences_.push_back(std::move(s));
  }

  void grow() {
    Model* s = any();
    if (!s) return;
    // A page that others have is not written to: write() copies it first.
    if (s->tokens % kPageSize && pool().ref_count(s->table.pages().back()) > 1) return;
    std::vector<PageRef> refs;
    if (!allocate(*s, 1, refs)) return;
    s->table.set(s->table.size(), std::move(refs[0]));
    s->contents.push_back(bytes_[s->table.pages().back()] = random_());
    const int32_t tokens = (s->table.size() - 1) * kPageSize + 1 + static_cast<int32_t>(random_() % kPageSize);
    kv_.computed(s->table, s->tokens, tokens - s->tokens);
    s->tokens = tokens;
  }

  void fork() {
    Model* s = any();
    if (!s || sequences_.size() >= 12) return;
    auto f = std::make_unique<Model>(pool(), next_uid_++);
    f->table.share_all(s->table);
    f->contents = s->contents;
    f->names = s->names;
    f->tokens = s->tokens;
    sequences_.push_back(std::move(f));
  }

  /// Writes the last page, copied first when somebody else has it; named pages are not written.
  void write() {
    Model* s = any();
    if (!s || s->contents.size() <= s->names.size()) return;
    const int32_t last = s->table.size() - 1;
    if (pool().ref_count(s->table[last]) > 1) {
      std::vector<PageRef> refs;
      if (!allocate(*s, 1, refs)) return;
      bytes_[refs[0].page()] = bytes_[s->table[last]];
      s->table.set(last, std::move(refs[0]));
    }
    s->contents[last] = bytes_[s->table[last]] = random_();
    kv_.computed(s->table, last * kPageSize, s->tokens - last * kPageSize);
  }

  void release() {
    if (sequences_.empty()) return;
    std::swap(sequences_[random_() % sequences_.size()], sequences_.back());
    sequences_.pop_back();
  }

  void cancel() {  // a plan that is dropped
    Model* s = any();
    std::vector<PageRef> refs;
    if (s) allocate(*s, 1 + static_cast<int32_t>(random_() % 3), refs);
  }

  void hold() {  // a plan that is under way: its pages stay where they are
    Model* s = any();
    if (!s || held_.size() > 4) return;
    held_.push_back(pool().share(s->table[static_cast<int32_t>(random_() % s->table.size())]));
    held_bytes_.resize(held_.size());
    held_bytes_.back() = bytes_[held_.back().page()];
  }

  void compact() {
    now_ += 1;
    bool displaced = false;
    try {
      const FailAllocations fail(rarely_fails());
      const MovePlan& plan = kv_.compact(now_);
      allocations_left = -1;
      std::set<int32_t> from, to;
      for (const auto& [source, destination] : plan.displaced) bytes_[destination] = bytes_[source];
      displaced = true;
      const size_t stop = random_() % 6 == 0 ? random_() % (plan.moves.size() + 1) : plan.moves.size() + 1;
      for (size_t i = 0; i < plan.moves.size(); ++i) {
        RC_ASSERT((from.insert(plan.moves[i].first).second && to.insert(plan.moves[i].second).second));
        if (i == stop) {
          bytes_[plan.moves[i].second] = random_();  // half a copy
          throw std::runtime_error("the copy fails");
        }
        bytes_[plan.moves[i].second] = bytes_[plan.moves[i].first];
      }
      for (int32_t page : from) RC_ASSERT(!to.contains(page));
      kv_.compacted(0);
    } catch (const std::exception&) {
      ++failures_;
      kv_.undo_compaction(displaced);
    }
    for (size_t i = 0; i < held_.size(); ++i) RC_ASSERT(bytes_[held_[i].page()] == held_bytes_[i]);
  }

  void relocate() {
    const auto from = static_cast<int32_t>(random_() % bytes_.size()), to = static_cast<int32_t>(random_() % bytes_.size());
    if (!kv_.compactor().movable(from) || pool().ref_count(to) > 0) return;
    kv_.relocate(from, to);
    bytes_[to] = bytes_[from];
  }

  void step() {
    for (auto& s : sequences_) reads_ += random_() % 2 ? (kv_.computed(s->table, s->tokens, 0), 1) : 0;
    kv_.end_step(now_);
  }

  void check() {
    kv_.check_invariants();
    const FragmentationReport r = kv_.fragmentation();
    int64_t runs = 0, entries = 0;
    std::map<int32_t, int32_t> filled;
    for (const auto& s : sequences_) {
      RC_ASSERT(s->table.size() == static_cast<int32_t>(s->contents.size()));
      for (int32_t i = 0; i < s->table.size(); ++i) {
        RC_ASSERT(bytes_[s->table[i]] == s->contents[i]);
        runs += i == 0 || s->table[i] != s->table[i - 1] + 1;
        const int32_t here = std::min(kPageSize, std::max(0, s->tokens - i * kPageSize));
        filled[s->table[i]] = std::max(filled[s->table[i]], here);
        if (kv_.prefix() && i < static_cast<int32_t>(s->names.size())) {
          const int32_t page = kv_.prefix()->find(s->names[i]);
          // Twice in brackets: RapidCheck overloads || and &&, and then neither stops early.
          RC_ASSERT((page < 0 || bytes_[page] == s->names[i].low));
        }
      }
      entries += s->table.size();
    }
    RC_ASSERT((r.sequences == static_cast<int64_t>(sequences_.size()) && r.descriptors == runs));
    int64_t slots = 0;
    for (const auto& [page, here] : filled) slots += here;
    if (held_.empty() && pool().num_used() > 0)
      RC_ASSERT(std::abs(r.slot_utilisation - double(slots) / (double(pool().num_used()) * kPageSize)) < 1e-9);
    const int32_t n = pool().num_pages();
    std::vector<std::pair<int32_t, int32_t>> free_runs;  // start, length
    for (int32_t page = 0; page < n; ++page) {
      if (pool().ref_count(page) > 0) continue;
      if (page == 0 || pool().ref_count(page - 1) > 0) free_runs.emplace_back(page, 0);
      ++free_runs.back().second;
    }
    double mean = 0, spatial = 0;
    int32_t largest = 0;
    for (const auto& [start, length] : free_runs) mean += length, largest = std::max(largest, length);
    RC_ASSERT((r.free_pages == static_cast<int32_t>(mean) && r.largest_run == largest));
    if (!free_runs.empty()) mean /= double(free_runs.size());
    for (const auto& [start, length] : free_runs) {
      const double d = (n - (start + length / 2.0)) / n, sigma = kv_.config().fragmentation.sigma;
      spatial += (length / mean - 1) * (length / mean - 1) * std::exp(-d / (sigma * sigma)) / double(free_runs.size());
    }
    RC_ASSERT(std::abs(r.spatial - spatial) < 1e-5 * (1 + spatial));
  }

  KvManager kv_;
  std::vector<uint64_t> bytes_;  // what the page holds
  std::mt19937 random_;
  std::vector<std::unique_ptr<Model>> sequences_;
  std::vector<PageRef> held_;
  std::vector<uint64_t> held_bytes_;
  uint64_t next_uid_ = 1;
  double now_ = 0;
  int64_t failures_ = 0, reads_ = 0;
};

class KvMachine : public ::testing::TestWithParam<std::string_view> {};

TEST_P(KvMachine, EverySequenceFindsItsBytes) {
  uint64_t moved = 0, displaced = 0;
  int64_t failures = 0;
  const bool passed = rc::check([&](uint32_t seed) {
    for (int32_t i = 0; i < kCases / 10; ++i) {  // RapidCheck runs 100 of these: a tenth of them is enough of its seeds
      std::mt19937 random(seed + static_cast<uint32_t>(i));
      KvConfig config;
      config.placement.policy = std::string(GetParam());
      config.prefix.policy = static_cast<PrefixPolicy>(random() % 3);
      config.fragmentation.window_steps = 1 + static_cast<int32_t>(random() % 5);
      config.compaction.bytes_per_step = random() % 5 ? kPageBytes * (1 + random() % 8) : 0;
      config.compaction.start_descriptors = 1.01;
      config.compaction.stop_descriptors = 1;
      config.compaction.start_external = 0.2;
      config.compaction.stop_external = 0.1;
      config.compaction.random_moves = random() % 3 ? 0 : static_cast<int32_t>(1 + random() % 4);
      Machine machine(config, 8 + static_cast<int32_t>(random() % 90), random());
      machine.run(kOperations / 10);
      moved += machine.stats().pages_moved;
      displaced += machine.stats().pages_displaced;
      failures += machine.failures();
    }
  });
  EXPECT_TRUE(passed);
  EXPECT_GT(moved, 1000u);
  EXPECT_GT(displaced, 10u);
  EXPECT_GT(failures, 100);
}

INSTANTIATE_TEST_SUITE_P(Policies, KvMachine, ::testing::ValuesIn(placement_names().begin(), placement_names().end()),
                         [](const auto& info) { return std::string(info.param); });

class KvManagerTest : public ::testing::Test {
 protected:
  void put(PageTable& table, std::vector<int32_t> pages) {
    // Takes exactly these pages: whatever the policy gives is moved there, high places first so that none is in the way.
    for (int32_t page : pages) {
      std::vector<PageRef> refs;
      ASSERT_TRUE(kv.pool().allocate({.count = 1}, refs));
      table.set(table.size(), std::move(refs[0]));
      if (table.pages().back() != page) kv.relocate(table.pages().back(), page);
    }
  }
  static KvConfig config() {
    KvConfig c;
    c.placement.policy = "first_fit";
    c.fragmentation.window_steps = 1;
    return c;
  }
  KvManager kv{config(), 64, kPageSize, kPageBytes};
};

TEST_F(KvManagerTest, CompactionBringsASequenceTogetherAndThenRests) {
  PageTable a(kv.pool()), b(kv.pool());
  put(a, {40, 20, 30, 10});
  put(b, {21, 22, 23});
  EXPECT_EQ(a.num_runs(), 4);
  for (int32_t step = 0; step < 50; ++step) {
    kv.compact(step);
    kv.compacted(0);
    kv.end_step(step);
  }
  EXPECT_EQ(a.num_runs(), 1);
  EXPECT_EQ(b.num_runs(), 1);
  const uint64_t moved = kv.compaction_stats().pages_moved;
  EXPECT_LE(moved, 12u);
  for (int32_t step = 0; step < 50; ++step) kv.compact(50 + step), kv.compacted(0);
  EXPECT_EQ(kv.compaction_stats().pages_moved, moved);
  kv.check_invariants();
}

TEST_F(KvManagerTest, EveryMeasureSeesWhatTheOthersMiss) {
  // A checkerboard: all free runs are alike, so F_spatial is 0, though nothing of two pages fits anywhere.
  std::vector<std::unique_ptr<PageTable>> tables;
  for (int32_t i = 0; i < 32; ++i) {
    tables.push_back(std::make_unique<PageTable>(kv.pool()));
    put(*tables.back(), {2 * i});
  }
  FragmentationReport r = kv.fragmentation();
  EXPECT_NEAR(r.spatial, 0, 1e-9);
  EXPECT_NEAR(r.external, 1 - 1.0 / 32, 1e-9);
  EXPECT_EQ(r.descriptors_per_sequence, 1);
  tables.clear();
  // One sequence all over the place: free space in one run beside it, yet a transfer takes 8 pieces.
  PageTable scattered(kv.pool());
  put(scattered, {7, 6, 5, 4, 3, 2, 1, 0});
  r = kv.fragmentation();
  EXPECT_EQ(r.external, 0);
  EXPECT_EQ(r.spatial, 0);
  EXPECT_EQ(r.descriptors_per_sequence, 8);
  EXPECT_EQ(r.bytes_per_run, kPageBytes);
  // Nothing is written yet: all of it is waste inside pages, which no measure of places sees.
  EXPECT_EQ(r.slot_utilisation, 0);
  kv.computed(scattered, 0, 30);
  EXPECT_DOUBLE_EQ(kv.fragmentation().slot_utilisation, 30.0 / 32);
  scattered.clear();
  // Two sequences read in turn: places never change, what is read does.
  PageTable a(kv.pool()), b(kv.pool());
  put(a, {0, 1}), put(b, {2, 3});
  kv.computed(a, 0, 8), kv.computed(b, 0, 8);
  for (int32_t step = 0; step < 20; ++step) kv.computed(step % 2 ? a : b, 8, 0), kv.end_step(step);
  r = kv.fragmentation();
  EXPECT_NEAR(r.temporal, 2, 0.2);  // all of it new each time: twice the mean
  EXPECT_EQ(r.descriptors_per_sequence, 1);
  for (int32_t step = 0; step < 20; ++step) kv.computed(a, 8, 0), kv.computed(b, 8, 0), kv.end_step(step);
  EXPECT_NEAR(kv.fragmentation().temporal, 0, 0.2);
  // Half of all pages computed again, a thousand times slower than reading them: no measure of places sees that.
  TierAccess tiers;
  tiers.latency_s = {1e-6, 0, 0, 1e-3};
  tiers.pages = {100, 0, 0, 100};
  EXPECT_NEAR(tiers.fragmentation(), 1.0 * (0.25 * 0.999 * 0.999) / (0.5005 * 0.5005), 1e-3);
  tiers.pages = {100, 0, 0, 0};
  EXPECT_EQ(tiers.fragmentation(), 0);
}

TEST_F(KvManagerTest, AMapNamesEveryPage) {
  PageTable a(kv.pool());
  put(a, {0, 1, 2, 9});
  PageMap map;
  int32_t next = 0, slices = 1;
  for (; !extend_page_map(map, next, 10, kv.pool()); ++slices) {
  }
  EXPECT_EQ(slices, 7);
  ASSERT_EQ(map.spans.size(), 4u);
  EXPECT_EQ(map.spans[0].length, 3);
  EXPECT_EQ(map.spans[0].state, PageState::kUsed);
  EXPECT_EQ(map.spans[1].length, 6);
  EXPECT_EQ(map.spans[3].length, 54);
}

TEST(KvManagerDeathTest, APageThatAPlanHoldsDoesNotMove) {
  KvManager kv({}, 8, kPageSize, kPageBytes);
  PageTable table(kv.pool());
  std::vector<PageRef> refs;
  ASSERT_TRUE(kv.pool().allocate({.count = 1}, refs));
  const int32_t page = refs[0].page();
  table.set(0, std::move(refs[0]));
  const PageRef planned = kv.pool().share(page);
  EXPECT_DEATH(kv.relocate(page, page == 7 ? 0 : 7), "beside the tables");
}

}  // namespace
}  // namespace tinyserve
