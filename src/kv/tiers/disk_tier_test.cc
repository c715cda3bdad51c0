#include "kv/tiers/disk_tier.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <random>

#include "base/log.h"
#include "kv/tiers/memory_disk.h"

namespace tinyserve {
namespace {

using testing::MemoryDisk;
using testing::MemoryFile;

constexpr int64_t kPage = 8192;
constexpr int64_t kSegment = 4096 + 64 * kPage;

PageHash name(uint64_t i) { return {i * 0x9E3779B97F4A7C15u, i}; }
std::vector<PageHash> names(uint64_t first, uint64_t count) {
  std::vector<PageHash> all;
  for (uint64_t i = first; i < first + count; ++i) all.push_back(name(i));
  return all;
}

void fill(std::byte* page, uint64_t i) {
  std::mt19937_64 random(i);
  for (int64_t b = 0; b < kPage; b += 8) {
    const uint64_t word = random();
    std::memcpy(page + b, &word, 8);
  }
}
bool is(const std::byte* page, uint64_t i) {
  std::vector<std::byte> expected(kPage);
  fill(expected.data(), i);
  return std::memcmp(page, expected.data(), kPage) == 0;
}

DiskTierConfig config(int64_t segments = 2) {
  DiskTierConfig c;
  c.path = "test";
  c.max_bytes = 4096 + segments * kSegment;
  c.store = {.page_bytes = kPage, .fingerprint = {1, 2}, .hash_key = {3, 4}};
  return c;
}

class DiskTierTest : public ::testing::Test {
 protected:
  DiskTierTest() { set_log_level(LogLevel::kOff); }
  ~DiskTierTest() override { set_log_level(LogLevel::kInfo); }
  std::unique_ptr<DiskTier> open(const DiskTierConfig& c = config()) {
    return DiskTier::open(std::make_unique<MemoryFile>(disk), c);
  }
  static int32_t put(DiskTier& tier, uint64_t first, int32_t count, bool wait = true) {
    auto images = tier.write_buffer(count);
    if (!images) return 0;
    const auto n = static_cast<int32_t>(images->names.size());
    for (int32_t i = 0; i < n; ++i) images->names[i] = name(first + i), fill(images->page(i), first + i);
    tier.write(std::move(*images));
    if (wait) tier.drain();
    return n;
  }
  /// Reads pages; how many came, all checked.
  static int32_t get(DiskTier& tier, uint64_t first, int32_t count) {
    const auto read = tier.read(names(first, count));
    while (!read->done()) tier.wait_for_read(0.1);
    for (int32_t i = 0; i < read->num_read; ++i) EXPECT_TRUE(is(read->images.page(i), first + i));
    tier.check_invariants();
    return read->num_read;
  }
  MemoryDisk disk;
};

TEST_F(DiskTierTest, KeepsPagesOverARestart) {
  {
    auto tier = open();
    EXPECT_EQ(put(*tier, 1, 70), 70);
    EXPECT_EQ(tier->match(names(1, 100)), 70);
    EXPECT_EQ(tier->match(names(71, 1)), 0);
    EXPECT_EQ(get(*tier, 1, 70), 70);
    EXPECT_EQ(get(*tier, 50, 40), 21) << "up to the first that is missing";
    const DiskStats s = tier->stats();
    EXPECT_EQ(s.pages, 70);
    EXPECT_EQ(s.max_pages, 128);
    EXPECT_EQ(s.written.pages, 70u);
    EXPECT_EQ(s.written.bytes, 70u * kPage);
    EXPECT_LE(s.written.transfers, 2u) << "runs are written in one go";
    EXPECT_LE(s.read.transfers, 4u);
    EXPECT_EQ(s.queued_bytes, 0);
  }
  auto tier = open();
  EXPECT_EQ(tier->stats().pages_found, 70u);
  EXPECT_EQ(tier->match(names(1, 70)), 70);
  EXPECT_EQ(get(*tier, 1, 70), 70);
}

TEST_F(DiskTierTest, WhatIsQueuedAtTheEndIsWritten) {
  {
    auto tier = open();
    for (int i = 0; i < 10; ++i) EXPECT_EQ(put(*tier, 1 + i * 3, 3, false), 3);
  }
  EXPECT_EQ(open()->match(names(1, 30)), 30);
}

TEST_F(DiskTierTest, EvictsTheOldestAtItsLimit) {
  auto tier = open(config(1));
  for (int i = 0; i < 20; ++i) put(*tier, 1 + i * 8, 8);
  const DiskStats s = tier->stats();
  EXPECT_EQ(s.pages, 64);
  EXPECT_EQ(s.evicted, 20u * 8 - 64);
  EXPECT_EQ(disk.bytes.size(), static_cast<size_t>(4096 + kSegment));
  EXPECT_EQ(tier->match(names(1, 8)), 0);
  EXPECT_EQ(get(*tier, 160 - 63, 64), 64);
  tier->check_invariants();
  tier.reset();
  EXPECT_EQ(open(config(1))->match(names(97, 64)), 64);
}

TEST_F(DiskTierTest, WritesPagesOnce) {
  auto tier = open();
  put(*tier, 1, 5);
  put(*tier, 3, 5);  // three of them again
  auto images = tier->write_buffer(2);
  images->names = {name(20), name(20)};
  fill(images->page(0), 20), fill(images->page(1), 20);
  tier->write(std::move(*images));
  tier->drain();
  EXPECT_EQ(tier->stats().written.pages, 8u);
  EXPECT_EQ(get(*tier, 1, 7), 7);
  EXPECT_EQ(get(*tier, 20, 1), 1);
  tier->check_invariants();
}

TEST_F(DiskTierTest, AFullQueueTurnsPagesAway) {
  DiskTierConfig c = config();
  c.queue_bytes = 4 * kPage;
  auto tier = open(c);
  const auto first = tier->write_buffer(3);
  EXPECT_EQ(first->names.size(), 3u);
  const auto second = tier->write_buffer(3);
  EXPECT_EQ(second->names.size(), 1u);
  EXPECT_FALSE(tier->write_buffer(1));
  EXPECT_EQ(tier->stats().turned_away, 3u);
}

TEST_F(DiskTierTest, AFullDiskKeepsWhatIsThere) {
  disk.capacity = 4096 + kSegment;  // room for one segment of two
  DiskTierConfig c = config();
  c.retry_s = 0;
  auto tier = open(c);
  put(*tier, 1, 60);
  put(*tier, 101, 20);  // no growth: the oldest go
  EXPECT_EQ(get(*tier, 101, 20), 20);
  EXPECT_GT(tier->stats().write_errors, 0u);
  EXPECT_EQ(tier->stats().pages, 64);
  disk.capacity = int64_t{1} << 40;  // somebody made room
  put(*tier, 201, 60);
  EXPECT_EQ(tier->stats().pages, 124);
  EXPECT_EQ(get(*tier, 201, 60), 60);
}

TEST_F(DiskTierTest, AFailedWriteStopsWritingForAWhile) {
  DiskTierConfig c = config();
  c.retry_s = 0.05;
  auto tier = open(c);
  put(*tier, 1, 4);
  disk.write_error = EIO;
  EXPECT_EQ(put(*tier, 5, 4), 4) << "accepted, then lost";
  EXPECT_FALSE(tier->write_buffer(1)) << "not accepted any more";
  EXPECT_EQ(tier->match(names(5, 4)), 0);
  EXPECT_EQ(get(*tier, 1, 4), 4) << "reading goes on";
  disk.write_error = 0;
  ::usleep(60000);
  EXPECT_EQ(put(*tier, 5, 4), 4);
  EXPECT_EQ(get(*tier, 1, 8), 8);
  EXPECT_EQ(tier->stats().write_errors, 1u);
}

TEST_F(DiskTierTest, ShortWritesAndReadsAreCarriedOn) {
  disk.most_per_call = 1000;
  auto tier = open();
  put(*tier, 1, 20);
  EXPECT_EQ(get(*tier, 1, 20), 20);
  EXPECT_EQ(tier->stats().write_errors, 0u);
}

TEST_F(DiskTierTest, AFailedReadIsNothingFound) {
  auto tier = open();
  put(*tier, 1, 10);
  disk.read_error = EIO;
  EXPECT_EQ(get(*tier, 1, 10), 0);
  EXPECT_EQ(tier->stats().read_errors, 1u);
  EXPECT_EQ(tier->match(names(1, 10)), 0) << "not tried again";
  disk.read_error = 0;
  put(*tier, 1, 10);
  EXPECT_EQ(get(*tier, 1, 10), 10);
}

TEST_F(DiskTierTest, DecayIsFoundWhenRead) {
  auto tier = open();
  put(*tier, 1, 64);
  disk.bytes[4096 + 4096 + 4 * kPage + 77] ^= std::byte{1};
  const int32_t whole = get(*tier, 1, 64);
  EXPECT_LT(whole, 64);
  EXPECT_EQ(tier->stats().corrupt, 1u);
  EXPECT_EQ(tier->match(names(1, 64)), whole);
  tier.reset();
  EXPECT_EQ(open()->stats().pages_found, 63u) << "not found again after a restart";
}

TEST_F(DiskTierTest, ATruncatedFileLosesOnlyWhatIsGone) {
  {
    auto tier = open();
    put(*tier, 1, 64);
    put(*tier, 65, 64);
  }
  disk.bytes.resize(4096 + kSegment + 30000);
  auto tier = open();
  EXPECT_EQ(tier->stats().pages_found, 64u);
  EXPECT_EQ(put(*tier, 201, 10), 10);
  EXPECT_EQ(get(*tier, 201, 10), 10);
}

TEST_F(DiskTierTest, AnOpenedFileMayShrinkUnderneath) {
  auto tier = open();
  put(*tier, 1, 64);
  disk.bytes.resize(4096 + 4096 + 20 * kPage);
  EXPECT_LE(get(*tier, 1, 64), 20);
  EXPECT_LE(get(*tier, 1, 64), 20);
}

TEST_F(DiskTierTest, ReadsGoBeforeWritesAndMayBeGivenUp) {
  auto tier = open();
  put(*tier, 1, 8);
  for (int i = 0; i < 10; ++i) tier->read(names(1, 8));  // nobody waits
  EXPECT_EQ(get(*tier, 1, 8), 8);
}

TEST_F(DiskTierTest, WhatIsQueuedCanBeReadAlready) {
  auto tier = open();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(put(*tier, 1 + i * 6, 6, false), 6);
    EXPECT_EQ(tier->match(names(1 + i * 6, 6)), 6);
    EXPECT_EQ(get(*tier, 1 + i * 6, 6), 6);
  }
  disk.write_error = EIO;
  put(*tier, 301, 6, false);
  EXPECT_EQ(get(*tier, 301, 6), 0) << "it never got there";
  tier->drain();
  EXPECT_EQ(tier->match(names(301, 6)), 0);
}

/// A real process, killed at a random moment while it writes.
TEST(DiskTierProcess, SurvivesKill9) {
  set_log_level(LogLevel::kOff);
  const auto folder = std::filesystem::temp_directory_path() / ("tinyserve-disk-tier-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  DiskTierConfig c = config(4);
  c.path = folder / "pages";
  std::mt19937 random(5);
  size_t most = 0;
  for (int life = 0; life < 6; ++life) {
    const pid_t child = ::fork();
    if (child == 0) {
      auto tier = DiskTier::open(c);
      if (!tier) ::_exit(3);
      for (uint64_t i = 1 + life * 1000;; i += 5) {
        auto images = tier->write_buffer(5);
        if (!images) continue;
        for (size_t k = 0; k < images->names.size(); ++k) images->names[k] = name(i + k), fill(images->page(k), i + k);
        tier->write(std::move(*images));
      }
    }
    ::usleep(5000 + random() % 100000);
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    auto tier = DiskTier::open(c);
    ASSERT_TRUE(tier) << "the lock died with the process";
    const DiskStats s = tier->stats();
    most = std::max<size_t>(most, s.pages);
    int32_t whole = 0, there = 0;
    for (uint64_t i = 1; i < 7000; ++i) {
      if (!tier->contains(name(i))) continue;
      ++there;
      const auto read = tier->read({name(i)});
      while (!read->done()) tier->wait_for_read(0.1);
      whole += read->num_read;
      if (read->num_read) {
        ASSERT_TRUE(is(read->images.page(0), i));
      }
    }
    EXPECT_GE(whole, there - 64) << "at most the run being written is torn";
    tier->check_invariants();
  }
  EXPECT_GT(most, 0u);
  // Another process has it.
  auto tier = DiskTier::open(c);
  EXPECT_FALSE(DiskTier::open(c));
  tier.reset();
  std::ofstream(c.path) << "something else altogether";
  EXPECT_FALSE(DiskTier::open(c));
  std::filesystem::remove_all(folder);
  set_log_level(LogLevel::kInfo);
}

}  // namespace
}  // namespace tinyserve
