// What fails in the middle of something costs the requests concerned, or nothing: allocations while a step is planned
// and committed, and copies while pages are moved. A full disk, short writes and EIO are in engine_tiers_test.cc and,
// call by call, in kv/tiers/disk_tier_test.cc; allocations and copies that fail at random in the books alone in
// kv/kv_manager_test.cc.

#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <random>
#include <stdexcept>
#include <thread>

#include "base/log.h"
#include "engine/engine_test_util.h"
#include "kv/tiers/memory_disk.h"

namespace {
thread_local int64_t allocations_left = -1;  // until one fails; -1: none does
thread_local int64_t allocations_failed = 0;
}  // namespace

[[gnu::noinline]] void* operator new(size_t size) {
  if (allocations_left >= 0 && allocations_left-- == 0) {
    ++allocations_failed;
    throw std::bad_alloc();
  }
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}
// The default one is not in terms of the above under AddressSanitizer, and what it gives must not go to free().
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t&) noexcept { return std::malloc(size ? size : 1); }
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace tinyserve {
namespace {

using testing::Collected;
using testing::EngineTest;
using testing::MemoryDisk;
using testing::MemoryFile;

class EngineFaultsTest : public EngineTest {
 protected:
  EngineFaultsTest() {
    set_log_level(LogLevel::kOff);
    config.num_pages = 40;
    config.max_context = 100;
    // Whatever can be moved together is.
    config.kv.compaction.start_descriptors = 1.01;
    config.kv.compaction.start_external = 0.1;
    config.kv.compaction.time_share = 1;
  }
  ~EngineFaultsTest() override {
    engine.reset();  // before the disk it writes to
    set_log_level(LogLevel::kInfo);
  }
  /// Requests that share beginnings, added as steps go by; `around` is called with each step to be made. Every answer
  /// that was not aborted is the one a request gets alone; returns how many those are.
  template <class Around>
  int32_t serve(int32_t count, uint32_t seed, Around&& around) {
    std::mt19937 random(seed);
    std::vector<Request> requests;
    const uint64_t first = next_id;
    for (int32_t i = 0; i < count; ++i) {
      std::vector<int32_t> tokens = prompt(20, i % 4);
      const std::vector<int32_t> rest = prompt(1 + static_cast<int32_t>(random() % 30), 10 + i);
      tokens.insert(tokens.end(), rest.begin(), rest.end());
      requests.push_back(greedy(std::move(tokens), 1 + static_cast<int32_t>(random() % 40)));
      requests.back().sampling.n = 1 + static_cast<int32_t>(random() % 2);
      add(next_id++, requests.back());
      for (uint32_t steps = random() % 4; steps > 0; --steps) around(random);
    }
    while (engine->has_work()) around(random);
    EXPECT_EQ(engine->stats().pages_used, 0);
    int32_t right = 0;
    for (int32_t i = 0; i < count; ++i) {
      EXPECT_TRUE(results[first + i].done);
      for (const auto& [index, choice] : results[first + i].choices) {
        if (choice.finish == FinishReason::kAbort) continue;
        EXPECT_EQ(choice.tokens, answer(requests[i].prompt, *requests[i].sampling.max_tokens)) << "request " << i;
        ++right;
      }
    }
    return right;
  }
  MemoryDisk disk;
};

TEST_F(EngineFaultsTest, ACompactionThatFailsInTheMiddleChangesNothing) {
  std::mt19937 random(1);
  int32_t failures = 0;
  config.kv.compaction.before_copy = [&](size_t) {
    if (random() % 4 != 0) return;
    ++failures;
    throw std::runtime_error(
        "the copy fails");  // in the first layer or when that is copied; some pages are where they go
  };
  int32_t right = 0;
  for (const char* policy : {"best_fit", "free_queue", "random"}) {
    config.kv.placement.policy = policy;
    engine.reset();
    right += serve(60, 7, [&](auto&) { step(); });
    EXPECT_GT(engine->stats().compaction.failed_copies, 0u) << policy;
    EXPECT_GT(engine->stats().compaction.pages_moved, 0u) << policy;
  }
  EXPECT_GT(failures, 5);
  EXPECT_GE(right, 180) << "nobody loses an answer by it";
}

TEST_F(EngineFaultsTest, ARequestThatCannotEvenBePlannedIsForgotten) {
  add(1, greedy(prompt(30), 5));
  allocations_left = 0;
  engine->step();
  allocations_left = -1;
  EXPECT_EQ(allocations_failed, 1);
  EXPECT_EQ(results[1].choices[0].finish, FinishReason::kAbort);
  EXPECT_FALSE(engine->has_work()) << "though no step will follow";
}

TEST_F(EngineFaultsTest, AllocationsThatFailInAStepEndItsRequestsAndLoseNoPage) {
  for (const bool tiers : {false, true}) {
    engine.reset();
    if (tiers) {
      config.tiers.fingerprint = "fake";
      config.tiers.host_bytes = 30 * model.kv_shape().token_bytes() * config.page_size;
      config.tiers.disk_bytes = 4 << 20;
      config.tiers.open_disk = [this] { return std::make_unique<MemoryFile>(disk); };
    }
    // Planning, commit, tiers and batch come before the model; what comes after it is the sampler's and the sinks'.
    model.on_forward = [&](const Step&) { allocations_left = -1; };
    allocations_failed = 0;
    const int32_t right = serve(200, 5, [&](std::mt19937& random) {
      allocations_left = random() % 8 == 0 ? static_cast<int64_t>(random() % 12) : -1;
      engine->step();
      allocations_left = -1;
      engine->check_invariants();
    });
    EXPECT_GT(allocations_failed, 5);
    EXPECT_GT(right, 20);
  }
}

}  // namespace
}  // namespace tinyserve
