#include "kv/tiers/kv_tiers.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <random>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "kv/kv_storage.h"

namespace tinyserve {
namespace {

constexpr int32_t kPages = 64, kPageSize = 4, kLayers = 3;
constexpr KvShape kShape = {.num_layers = kLayers, .kv_heads = 2, .head_dim = 8, .dtype = DType::kF32};
constexpr int64_t kPieceBytes = 2 * 8 * kPageSize * 4, kPageBytes = kPieceBytes * 2 * kLayers;

PageHash name(uint64_t i) { return {i * 0x9E3779B97F4A7C15u, i}; }
std::vector<PageHash> names(uint64_t first, uint64_t count) {
  std::vector<PageHash> all;
  for (uint64_t i = first; i < first + count; ++i) all.push_back(name(i));
  return all;
}


class KvTiersTest : public ::testing::TestWithParam<const char*> {
 protected:
  KvTiersTest()
      : ops(ops::make_ops("ref", threads)),
        storage(*ops, kShape, kPageSize, kPages),
        folder(std::filesystem::temp_directory_path() / ("tinyserve-kv-tiers-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder);
    set_log_level(LogLevel::kOff);
    config.fingerprint = "weights";
    config.disk_bytes = 64 << 20;
    const std::string tiers = GetParam();
    if (tiers.find("host") != std::string::npos) config.host_bytes = 40 * kPageBytes;
    if (tiers.find("disk") != std::string::npos) config.disk_path = folder / "pages";
    open();
  }
  ~KvTiersTest() override {
    tiers.reset();
    std::filesystem::remove_all(folder);
    set_log_level(LogLevel::kInfo);
  }
  void open() {
    tiers.reset();
    tiers = KvTiers::make(config, *ops, storage);
    tiers->set_lookup([this](const PageHash& n) {
      const auto at = cached.find(n.high);
      return at == cached.end() ? -1 : at->second;
    });
  }
  bool has_host() const { return config.host_bytes > 0; }
  bool has_disk() const { return !config.disk_path.empty(); }

  /// Writes content i to a page of the cache.
  void fill(int32_t page, uint64_t i) {
    for (size_t l = 0; l < storage.layers().size(); ++l) {
      for (int v = 0; v < 2; ++v) {
        std::mt19937 random(static_cast<uint32_t>(i * 100 + l * 2 + v));
        std::byte* at = (v ? storage.layers()[l].v : storage.layers()[l].k) + page * kPieceBytes;
        for (int64_t b = 0; b < kPieceBytes; ++b) at[b] = static_cast<std::byte>(random());
      }
    }
  }
  std::vector<std::byte> bytes(int32_t page) {
    std::vector<std::byte> all;
    for (const ops::KvLayer& l : storage.layers()) {
      all.insert(all.end(), l.k + page * kPieceBytes, l.k + (page + 1) * kPieceBytes);
      all.insert(all.end(), l.v + page * kPieceBytes, l.v + (page + 1) * kPieceBytes);
    }
    return all;
  }
  bool holds(int32_t page, uint64_t i) {
    const auto now = bytes(page);
    fill(kPages - 1, i);
    return now == bytes(kPages - 1);
  }
  /// Contents [first, first + count) were in pages from `page` on and are evicted.
  void evict(int32_t page, uint64_t first, int32_t count) {
    for (int32_t i = 0; i < count; ++i) fill(page + i, first + i), tiers->evicted(page + i, name(first + i));
    tiers->move({});
    for (int32_t i = 0; i < count; ++i) fill(page + i, 999999);
    tiers->check_invariants();
  }
  /// As a scheduler asks: until it need not wait.
  int32_t find(uint64_t uid, uint64_t first, int32_t count) {
    for (int turn = 0; turn < 1000; ++turn) {
      tiers->begin_plan();
      const auto found = tiers->find(uid, names(first, count), now);
      if (!found.wait) return found.pages;
      tiers->wait(0.01);
    }
    ADD_FAILURE() << "waits for ever";
    return -1;
  }
  /// Brings pages [first, first + count) to cache pages from `page` on, and looks at them.
  int32_t fetch(uint64_t uid, uint64_t first, int32_t count, int32_t page) {
    const int32_t n = find(uid, first, count);
    if (n > 0) {
      std::vector<int32_t> to;
      for (int32_t i = 0; i < n; ++i) to.push_back(page + i);
      std::vector<Promotion> promotions;
      tiers->promote(uid, names(first, n), to, promotions);
      tiers->admitted(uid, 0, count - n);
      tiers->move(promotions);
      for (int32_t i = 0; i < n; ++i) EXPECT_TRUE(holds(page + i, first + i)) << first + i;
    } else {
      tiers->admitted(uid, 0, count);
    }
    tiers->check_invariants();
    return n;
  }

  ThreadPool threads{1};
  std::unique_ptr<ops::Ops> ops;
  KvStorage storage;
  const std::filesystem::path folder;
  TiersConfig config;
  std::map<uint64_t, int32_t> cached;
  std::unique_ptr<KvTiers> tiers;
  double now = 1;
};

TEST_P(KvTiersTest, WhatGoesDownComesBack) {
  evict(3, 100, 10);
  EXPECT_EQ(fetch(1, 100, 12, 20), 10);
  EXPECT_EQ(fetch(2, 105, 3, 40), 3);
  EXPECT_EQ(fetch(3, 300, 3, 40), 0);
  const TierStats s = tiers->stats();
  EXPECT_EQ(has_host() ? s.host_hit_pages : s.disk_hit_pages, 13u);
  EXPECT_EQ(s.recomputed_pages, 2u + 3);
  EXPECT_EQ(s.pages_lost, 0u);
  EXPECT_EQ(s.loading, 0);
}

TEST_P(KvTiersTest, RunsAreOneCopyPerTensor) {
  if (!has_host()) return;
  evict(0, 100, 16);
  TierStats s = tiers->stats();
  EXPECT_EQ(s.host_down.transfers, 2u * kLayers);
  EXPECT_EQ(s.host_down.bytes, 16u * kPageBytes);
  EXPECT_EQ(s.host_down.bytes_per_transfer(), 16. * kPieceBytes);
  for (int32_t page = 0; page < 16; page += 2) tiers->evicted(page, name(200 + page));  // holes between
  tiers->move({});
  s = tiers->stats();
  EXPECT_EQ(s.host_down.transfers, 2u * kLayers * 9);
  fetch(1, 100, 16, 20);
  EXPECT_EQ(tiers->stats().host_up.transfers, 2u * kLayers);
}

TEST_P(KvTiersTest, AFullHostGivesToTheDisk) {
  for (int32_t i = 0; i < 10; ++i) evict(0, 100 + i * 10, 10);
  if (has_disk()) tiers->disk()->drain();
  int32_t there = 0;
  for (int32_t i = 0; i < 10; ++i) there += fetch(1 + i, 100 + i * 10, 10, 20);
  const TierStats s = tiers->stats();
  if (has_disk()) {
    EXPECT_EQ(there, 100);
  } else {
    EXPECT_EQ(there, 40);
    EXPECT_EQ(s.pages_lost, 60u);
  }
  if (has_host()) {
    EXPECT_EQ(s.host_pages, 40);
    EXPECT_EQ(s.host_evicted, 60u);
    EXPECT_GT(s.host_hit_pages, 0u);
  }
}

TEST_P(KvTiersTest, OneStepMayEvictMoreThanTheHostHolds) {
  evict(0, 100, 60);
  if (has_disk()) tiers->disk()->drain();
  EXPECT_EQ(tiers->stats().pages_lost, has_host() ? 20u : 0u);
}

TEST_P(KvTiersTest, ARestartFindsWhatTheDiskHas) {
  if (!has_disk()) return;
  for (int32_t i = 0; i < 6; ++i) evict(0, 100 + i * 10, 10);
  const HashKey key = *tiers->hash_key();
  const int32_t left_behind = has_host() ? 20 : 60;
  tiers->disk()->drain();
  open();
  EXPECT_EQ(*tiers->hash_key(), key);
  int32_t there = 0;
  for (int32_t i = 0; i < 6; ++i) there += fetch(1 + i, 100 + i * 10, 10, 20);
  EXPECT_EQ(there, left_behind);
  config.fingerprint = "other weights";
  open();
  EXPECT_NE(*tiers->hash_key(), key);
  EXPECT_EQ(fetch(1, 100, 10, 20), 0);
}

TEST_P(KvTiersTest, WritesAheadWithinItsBudget) {
  if (!has_disk()) return;
  config.disk_write_rate = 8 * kPageBytes;  // a second; a quarter of it may be saved up
  open();
  for (int32_t i = 0; i < 20; ++i) {
    fill(i, 100 + i);
    cached[100 + i] = i;
    tiers->computed(name(100 + i));
  }
  tiers->end_step(now);
  tiers->disk()->drain();
  EXPECT_LE(tiers->stats().disk.pages, 2);
  int turns = 0;
  for (; tiers->writing() && turns < 1000; ++turns) tiers->end_step(now += 0.1), tiers->disk()->drain();
  EXPECT_GE(turns, 20);
  EXPECT_EQ(tiers->stats().disk.pages, 20);
  cached.clear();
  tiers->computed(name(500));  // evicted before its turn
  tiers->end_step(now += 10);
  EXPECT_FALSE(tiers->writing());
  open();
  EXPECT_EQ(fetch(1, 100, 20, 30), 20);
}

TEST_P(KvTiersTest, DroppedPromotionsChangeNothing) {
  evict(0, 100, 5);
  ASSERT_EQ(find(1, 100, 5), 5);
  std::vector<Promotion> promotions;
  const std::vector<int32_t> to = {20, 21, 22, 23, 24};
  fill(20, 7);
  tiers->promote(1, names(100, 5), to, promotions);
  EXPECT_TRUE(tiers->find(2, names(100, 5), now).wait) << "about to be in the cache";
  promotions.clear();
  tiers->move(promotions);
  EXPECT_TRUE(holds(20, 7));
  tiers->forget(1);
  tiers->check_invariants();
  EXPECT_EQ(fetch(2, 100, 5, 30), 5);
}

TEST_P(KvTiersTest, SharedPrefixesAreReadOnce) {
  if (has_host() || !has_disk()) return;
  evict(0, 100, 8);
  tiers->disk()->drain();
  tiers->begin_plan();
  EXPECT_TRUE(tiers->find(1, names(100, 8), now).wait);
  EXPECT_TRUE(tiers->find(2, names(100, 8), now).wait);
  EXPECT_EQ(tiers->stats().loading, 1) << "the second waits for the first";
  tiers->forget(1);  // hangs up
  EXPECT_FALSE(tiers->loading());
  EXPECT_EQ(fetch(2, 100, 8, 20), 8);
}

TEST_P(KvTiersTest, ASlowReadIsGivenUp) {
  if (has_host() || !has_disk()) return;
  evict(0, 100, 8);
  tiers->disk()->drain();
  ASSERT_TRUE(tiers->find(1, names(100, 8), now).wait);
  // Whether or not it has come by now, a time later than any patience ends the wait.
  const auto found = tiers->find(1, names(100, 8), now + 100);
  EXPECT_FALSE(found.wait);
  EXPECT_EQ(tiers->stats().reads_given_up, found.pages == 0 ? 1u : 0u);
  tiers->admitted(1, 0, 8);
  EXPECT_EQ(fetch(2, 100, 8, 20), 8);
}

TEST_P(KvTiersTest, NothingIsBroughtThatIsCheaperToCompute) {
  if (!has_host()) return;
  evict(0, 100, 8);
  ASSERT_EQ(fetch(1, 100, 8, 20), 8);  // measures
  tiers->measured(1000, 1000, 1e-9);
  EXPECT_EQ(fetch(2, 100, 8, 20), 0);
  EXPECT_GT(tiers->stats().refused_by_cost, 0u);
  evict(0, 200, 8);
  EXPECT_EQ(tiers->stats().pages_lost, 8u) << "nor kept for it";
  for (int i = 0; i < 100; ++i) tiers->measured(1000, 1000, 10);
  EXPECT_EQ(fetch(3, 100, 8, 20), 8);
}

TEST_P(KvTiersTest, StepsOfDecodesSayNothingAboutPrompts) {
  tiers->measured(0, 64, 1);
  tiers->measured(16, 64, 1);
  EXPECT_FALSE(tiers->cost().measured());
  tiers->measured(60, 64, 1);
  EXPECT_TRUE(tiers->cost().measured());
}

INSTANTIATE_TEST_SUITE_P(Tiers, KvTiersTest, ::testing::Values("host", "disk", "host+disk"), [](auto& info) {
  std::string name = info.param;
  std::erase(name, '+');
  return name;
});

TEST(KvTiers, SaysWhatIsTooSmall) {
  ThreadPool threads{1};
  const auto ops = ops::make_ops("ref", threads);
  const KvStorage storage(*ops, kShape, kPageSize, 4);
  EXPECT_EQ(KvTiers::make({}, *ops, storage), nullptr);
  EXPECT_THROW(KvTiers::make({.host_bytes = 10}, *ops, storage), InputError);
  EXPECT_THROW(KvTiers::make({.disk_path = "/tmp/x", .disk_bytes = 10}, *ops, storage), InputError);
  set_log_level(LogLevel::kOff);
  const auto none = KvTiers::make({.disk_path = "/no/such/folder/pages"}, *ops, storage);
  set_log_level(LogLevel::kInfo);
  EXPECT_FALSE(none->hash_key());
  none->evicted(0, {1, 1});
  none->move({});
  EXPECT_EQ(none->stats().pages_lost, 1u);
}

}  // namespace
}  // namespace tinyserve
