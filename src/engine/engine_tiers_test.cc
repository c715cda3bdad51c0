// The engine with a pool too small and tiers below it: whatever goes down, comes back, is lost, torn or cannot be written,
// every greedy answer is the one a request gets alone.

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "engine/engine_test_util.h"
#include "engine/engine_thread.h"
#include "kv/tiers/memory_disk.h"

namespace tinyserve {
namespace {

using testing::Collected;
using testing::EngineTest;
using testing::MemoryDisk;
using testing::MemoryFile;

class EngineTiersTest : public EngineTest {
 protected:
  EngineTiersTest() {
    set_log_level(LogLevel::kOff);
    config.num_pages = 40;
    config.max_context = 100;
    config.tiers.fingerprint = "fake";
    config.tiers.disk_bytes = 4 << 20;
    // Steps as slow as a real model's, so that bringing pages back is worth it.
    model.on_forward = [](const Step&) { std::this_thread::sleep_for(std::chrono::microseconds(200)); };
  }
  ~EngineTiersTest() override {
    engine.reset();  // before the disks it writes to
    set_log_level(LogLevel::kInfo);
  }

  void use_host(int64_t pages) { config.tiers.host_bytes = pages * model.kv_shape().token_bytes() * config.page_size; }
  void use_disk(MemoryDisk& disk) {
    config.tiers.open_disk = [&disk] { return std::make_unique<MemoryFile>(disk); };
  }
  /// An empty disk that lives longer than any engine of the test: the engine's end still writes.
  MemoryDisk& new_disk() { return *disks_.emplace_back(std::make_unique<MemoryDisk>()); }
  TierStats tiers() const { return engine->stats().tiers; }

  /// Six families of prompts of 40 to 80 tokens, the first 32 in common: far more than 40 pages.
  static std::vector<int32_t> family_prompt(int32_t family, int32_t member) {
    std::vector<int32_t> tokens = prompt(32, family);
    const std::vector<int32_t> rest = prompt(8 + member * 7 % 41, 100 + family * 20 + member);
    tokens.insert(tokens.end(), rest.begin(), rest.end());
    return tokens;
  }
  /// Adds requests as steps go by and checks every answer; `rounds` times all families.
  void serve(int32_t rounds, uint32_t seed, int32_t cancel_every = 0, int32_t most_choices = 1) {
    struct Asked {
      uint64_t id;
      Request request;
      bool cancelled = false;
    };
    if (!engine) start();
    std::mt19937 random(seed);
    std::vector<Asked> asked;
    for (int32_t i = 0; i < rounds * 6; ++i) {
      Request r = greedy(family_prompt(i % 6, static_cast<int32_t>(random() % 3)), 1 + static_cast<int32_t>(random() % 16));
      r.sampling.n = 1 + static_cast<int32_t>(random() % static_cast<uint32_t>(most_choices));
      r.sampling.ignore_eos = true;
      asked.push_back({next_id++, r});
      add(asked.back().id, std::move(r));
      for (uint32_t steps = random() % 4; steps > 0; --steps) step();
      if (cancel_every > 0 && random() % static_cast<uint32_t>(cancel_every) == 0) {
        Asked& victim = asked[random() % asked.size()];
        victim.cancelled |= !results[victim.id].done;
        engine->cancel(victim.id);
        engine->check_invariants();
      }
    }
    run();
    for (Asked& a : asked) {
      if (a.cancelled) continue;
      const Collected& c = results[a.id];
      ASSERT_TRUE(c.done);
      ASSERT_EQ(static_cast<int32_t>(c.choices.size()), a.request.sampling.n);
      for (const auto& [index, choice] : c.choices) {
        if (choice.finish == FinishReason::kAbort) continue;  // a step that failed
        ASSERT_EQ(choice.tokens, answer(a.request.prompt, *a.request.sampling.max_tokens)) << "request " << a.id;
        ++answered;
      }
    }
  }
  int32_t answered = 0;

 private:
  std::vector<std::unique_ptr<MemoryDisk>> disks_;
};

TEST_F(EngineTiersTest, WhatThePoolGivesUpComesBackFromHostMemory) {
  use_host(200);
  serve(8, 1);
  EXPECT_GT(tiers().host_hit_pages, 0u);
  EXPECT_GT(tiers().host_down.pages, 0u);
  EXPECT_EQ(tiers().loading, 0);
  const FragmentationReport f = engine->stats().fragmentation;
  EXPECT_GE(f.access, 0);
}

TEST_F(EngineTiersTest, APreemptedSequenceGetsItsPagesBack) {
  use_host(200);
  config.num_pages = 32;
  config.max_context = 128;
  for (uint64_t i = 0; i < 4; ++i) add(i, greedy(prompt(20, static_cast<int32_t>(i)), 80));
  run();
  for (uint64_t i = 0; i < 4; ++i)
    EXPECT_EQ(results[i].choices.at(0).tokens, answer(prompt(20, static_cast<int32_t>(i)), 80));
  EXPECT_GT(engine->stats().preemptions, 0u);
  EXPECT_GT(tiers().host_hit_pages, 0u);
}

TEST_F(EngineTiersTest, ForksCancelsAndMovingPagesChangeNothing) {
  MemoryDisk& disk = new_disk();
  for (const int64_t host : {0, 30, 100}) {
    for (const int32_t moves : {0, 4}) {
      engine.reset();
      disk.bytes.clear();
      use_host(host);
      use_disk(disk);
      config.kv.compaction.random_moves = moves;
      serve(5, static_cast<uint32_t>(host * 2 + moves), 4, 3);
      EXPECT_EQ(engine->stats().pages_used, 0);
    }
  }
  EXPECT_GT(answered, 50);
}

TEST_F(EngineTiersTest, AFailedStepGivesEverythingBack) {
  MemoryDisk& disk = new_disk();
  use_host(30);
  use_disk(disk);
  int32_t steps = 0;
  model.on_forward = [&](const Step&) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    if (++steps % 9 == 0) throw std::runtime_error("the device has a bad day");
  };
  for (uint32_t seed = 0; seed < 4; ++seed) serve(5, seed);
  EXPECT_GT(answered, 10);
  EXPECT_GT(tiers().host_hit_pages + tiers().disk_hit_pages, 0u);
}

/// A disk with what a process that dies now leaves behind.
MemoryDisk& left_behind(MemoryDisk& from, MemoryDisk& to) {
  const std::lock_guard lock(from.mutex);
  to.bytes = from.bytes;
  return to;
}

TEST_F(EngineTiersTest, ARestartFindsPrefixesHoweverTheProcessEnded) {
  MemoryDisk &disk = new_disk(), &copy = new_disk();
  use_disk(disk);
  serve(3, 7);
  for (int turn = 0; turn < 1000 && engine->has_idle_work(); ++turn) {
    engine->idle();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_FALSE(engine->has_idle_work()) << "everything is written while nothing else is to be done";
  for (int turn = 0; turn < 1000 && tiers().disk.queued_bytes > 0; ++turn)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  use_disk(left_behind(disk, copy));  // kill -9
  engine.reset();
  serve(3, 8);
  EXPECT_GT(tiers().disk.pages_found, 30u);
  EXPECT_GT(tiers().disk_hit_pages, 0u);
  EXPECT_EQ(tiers().disk.corrupt, 0u);

  engine.reset();  // the orderly way
  serve(1, 9);
  EXPECT_GT(tiers().disk_hit_pages, 0u);

  config.tiers.fingerprint = "other weights";
  engine.reset();
  serve(1, 10);
  EXPECT_EQ(tiers().disk.pages_found, 0u);
}

TEST_F(EngineTiersTest, ATornFileGivesNoWrongToken) {
  std::mt19937 random(3);
  for (int32_t round = 0; round < 4; ++round) {
    MemoryDisk &disk = new_disk(), &copy = new_disk();
    use_disk(disk);
    engine.reset();
    start();
    disk.dies_after = 20000 + static_cast<int64_t>(random() % 200000);  // the rest is never written
    serve(2, static_cast<uint32_t>(round));
    for (int turn = 0; turn < 100 && engine->has_idle_work(); ++turn) {
      engine->idle();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    left_behind(disk, copy);
    for (int i = 0; i < 20 && copy.bytes.size() > 8192; ++i)  // and some of it decays
      copy.bytes[8192 + random() % (copy.bytes.size() - 8192)] ^= std::byte{0x10};
    use_disk(copy);
    engine.reset();
    serve(3, static_cast<uint32_t>(100 + round));
    engine.reset();
  }
}

TEST_F(EngineTiersTest, ABrokenDiskCostsPagesAndNothingElse) {
  for (const int32_t fault : {0, 1, 2, 3}) {
    MemoryDisk& disk = new_disk();
    use_disk(disk);
    use_host(20);
    engine.reset();
    start();
    {
      const std::lock_guard lock(disk.mutex);
      if (fault == 0) disk.capacity = static_cast<int64_t>(disk.bytes.size()) + 300000;  // full
      if (fault == 1) disk.write_error = EIO;
      if (fault == 2) disk.read_error = EIO;
      if (fault == 3) disk.most_per_call = 100;  // short reads and writes
    }
    serve(6, static_cast<uint32_t>(fault));
    if (fault == 1) {
      EXPECT_GT(tiers().disk.write_errors, 0u);
    }
    EXPECT_EQ(tiers().loading, 0);
    engine.reset();
  }
}

TEST_F(EngineTiersTest, TheThreadWritesWhileItIdles) {
  MemoryDisk& disk = new_disk();
  use_disk(disk);
  config.tiers.disk_write_rate = 1 << 16;  // some 500 pages a second
  start();
  Collected collected;
  EngineThread thread(std::move(engine));
  thread.submit(greedy(prompt(80), 4), collected.sink());
  int32_t pages = 0;
  for (int turn = 0; turn < 2000 && pages < 20; ++turn) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    pages = static_cast<int32_t>(thread.stats().tiers.disk.pages);
  }
  EXPECT_GE(pages, 20) << "all full pages of the prompt, though no further step is made";
  EXPECT_TRUE(thread.drain(10));
}

TEST_F(EngineTiersTest, SaysWhatDoesNotGoTogether) {
  use_host(100);
  config.kv.prefix.policy = PrefixPolicy::kOff;
  EXPECT_THROW(start(), InputError);
  config.kv.prefix.policy = PrefixPolicy::kLru;
  config.tiers.host_bytes = 3;
  EXPECT_THROW(start(), InputError);
  use_host(100);
  serve(3, 1);
  EXPECT_GT(tiers().host_hit_pages, 0u);
}

}  // namespace
}  // namespace tinyserve
