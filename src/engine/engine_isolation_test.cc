// What a client may learn about another's prompts from the prefix cache and the tiers below it: nothing, unless both
// use the same salt. Time is measured in what takes it: rows of the model, steps, pages brought back.

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <map>
#include <set>
#include <thread>

#include "base/log.h"
#include "engine/engine_test_util.h"
#include "kv/page_hash.h"
#include "kv/tiers/memory_disk.h"

namespace tinyserve {
namespace {

using testing::Collected;
using testing::EngineTest;
using testing::MemoryDisk;
using testing::MemoryFile;

class EngineIsolationTest : public EngineTest {
 protected:
  EngineIsolationTest() { set_log_level(LogLevel::kOff); }
  ~EngineIsolationTest() override {
    engine.reset();  // before the disks it writes to
    set_log_level(LogLevel::kInfo);
  }
  struct Seen {
    int32_t cached = 0;
    int64_t rows = 0, forwards = 0;
    bool operator==(const Seen&) const = default;
  };
  static Request salted(std::vector<int32_t> prompt, const std::string& salt, int32_t max_tokens = 2) {
    Request r = greedy(std::move(prompt), max_tokens);
    r.cache_salt = salt;
    return r;
  }
  Seen ask(const std::vector<int32_t>& prompt, const std::string& salt) {
    const int64_t rows = model.num_rows, forwards = model.num_forwards;
    const Collected got = run_one(salted(prompt, salt));
    EXPECT_EQ(got.choices.at(0).tokens, answer(prompt, 2));
    return {got.cached_prompt_tokens, model.num_rows - rows, model.num_forwards - forwards};
  }
  void use_disk(MemoryDisk& disk) {
    config.tiers.fingerprint = "fake";
    config.tiers.disk_bytes = 4 << 20;
    config.tiers.open_disk = [&disk] { return std::make_unique<MemoryFile>(disk); };
    model.on_forward = [](const Step&) { std::this_thread::sleep_for(std::chrono::microseconds(200)); };
  }
  /// Until the disk has all that was computed.
  void settle() {
    for (int turn = 0; turn < 1000 && (engine->has_idle_work() || engine->stats().tiers.disk.queued_bytes > 0);
         ++turn) {
      engine->idle();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  MemoryDisk disk, other_disk;
};

TEST_F(EngineIsolationTest, Cve2025_46570_APromptOfAnotherSaltIsAsNew) {
  const std::vector<int32_t> secret = prompt(22);  // five pages and a half
  const Seen cold = ask(secret, "alice");
  EXPECT_EQ(cold.cached, 0);
  EXPECT_EQ(ask(secret, "bob"), cold);
  EXPECT_EQ(ask(secret, ""), cold);
  EXPECT_GT(ask(secret, "alice").cached, 0) << "or the test proves nothing";
}

TEST_F(EngineIsolationTest, Cve2025_46570_NorCanItBeGuessedTokenByToken) {
  // Parts of pages are shared by copying: a cache that forgot the salt there would tell each token apart.
  const std::vector<int32_t> secret = prompt(7);
  ask(secret, "alice");
  for (size_t right = 1; right <= secret.size(); ++right) {
    std::vector<int32_t> guess(secret.begin(), secret.begin() + static_cast<int64_t>(right));
    guess.resize(8, 60);
    EXPECT_EQ(ask(guess, "mallory" + std::to_string(right)).cached, 0);
  }
  EXPECT_EQ(ask(secret, "alice").cached, 6) << "the part of a page included";
}

TEST_F(EngineIsolationTest, Cve2025_46570_NorWhileTheOtherStillRuns) {
  const std::vector<int32_t> secret = prompt(20);
  const Seen cold = ask(secret, "nobody");
  add(1, salted(secret, "alice", 30));
  for (int i = 0; i < 3; ++i) step();
  add(2, salted(secret, "bob"));
  add(3, salted(secret, "alice"));
  run();
  EXPECT_EQ(results[2].cached_prompt_tokens, cold.cached);
  EXPECT_GT(results[3].cached_prompt_tokens, 0);
}

TEST_F(EngineIsolationTest, Cve2025_46570_NorFromTheTiersBelow) {
  use_disk(disk);
  config.num_pages = 12;
  config.max_context = 40;
  config.tiers.host_bytes = 100 * model.kv_shape().token_bytes() * config.page_size;
  const std::vector<int32_t> secret = prompt(24);
  const auto brought = [&] { return engine->stats().tiers.host_hit_pages + engine->stats().tiers.disk_hit_pages; };
  const auto push_down = [&] {
    for (int32_t other = 1; other < 6; ++other) ask(prompt(30, other), "");
    settle();
  };
  const Seen cold = ask(secret, "alice");
  push_down();
  const uint64_t before = brought();
  EXPECT_EQ(ask(secret, "bob"), cold);
  EXPECT_EQ(brought(), before);
  // They are there for alice; more than one try, because a machine that stalls makes moving look dear for a while.
  for (int tries = 0; tries < 50 && brought() == before; ++tries) {
    if (tries > 0) push_down();
    ask(secret, "alice");
  }
  EXPECT_GT(brought(), before);

  engine.reset();  // and not after a restart, when the names of the file's pages go on being used
  config.tiers.host_bytes = 0;
  EXPECT_EQ(ask(secret, "eve").cached, 0);
  EXPECT_EQ(engine->stats().tiers.disk_hit_pages, 0u);
  EXPECT_GT(ask(secret, "alice").cached, 0);
  EXPECT_GT(engine->stats().tiers.disk_hit_pages, 0u);
}

// CVE-2025-25183: the hash was the same in every process, so that prompts could be built whose pages had the name of
// another's, and got its K and V.

TEST(Cve2025_25183, EveryProcessDrawsAKey) {
  const std::vector<int32_t> tokens(16, 7);
  constexpr int kKeys = 256;
  std::array<int, 128> ones{};
  for (int i = 0; i < kKeys; ++i) {
    const PageHash name = PageHasher().chain({}, tokens);
    for (int bit = 0; bit < 128; ++bit) ones[bit] += ((bit < 64 ? name.low : name.high) >> (bit % 64)) & 1;
  }
  for (int n :
       ones) {  // all bits of a name that is known in one process are open in the next; 128 +- 6 deviations of 8
    EXPECT_GT(n, 80);
    EXPECT_LT(n, 176);
  }
}

TEST(Cve2025_25183, WhatCollidesUnderOneKeyDoesNotUnderAnother) {
  // An attacker who knows the function and tries it at home; 20 bits stand for the 64 of the attack, so that it
  // succeeds.
  const PageHasher home(HashKey{1, 2}), victim;
  constexpr uint64_t kBits = (1 << 20) - 1;
  std::map<uint64_t, int32_t> seen;
  int found = 0, still = 0;
  for (int32_t i = 0; found < 32; ++i) {
    const std::vector<int32_t> tokens{i, i >> 4, 3, 4};
    const auto [at, is_new] = seen.emplace(home.chain({}, tokens).low & kBits, i);
    if (is_new) continue;
    ++found;
    const std::vector<int32_t> twin{at->second, at->second >> 4, 3, 4};
    still += (victim.chain({}, tokens).low & kBits) == (victim.chain({}, twin).low & kBits);
  }
  EXPECT_LE(still, 1);
}

TEST_F(EngineIsolationTest, Cve2025_25183_PagesOfTheSamePromptsHaveOtherNamesInEveryFile) {
  std::set<std::pair<uint64_t, uint64_t>> names;
  size_t written = 0;
  for (MemoryDisk* d : {&disk, &other_disk}) {
    use_disk(*d);
    ask(prompt(20), "");
    engine.reset();
    const std::lock_guard lock(d->mutex);
    for (size_t at = 4096; at + 64 <= d->bytes.size(); at += 64) {  // the records of disk_store.cc
      if (std::memcmp(&d->bytes[at], "TSPG", 4) != 0) continue;
      std::pair<uint64_t, uint64_t> name;
      std::memcpy(&name.first, &d->bytes[at + 8], 8);
      std::memcpy(&name.second, &d->bytes[at + 16], 8);
      names.insert(name);
      ++written;
    }
  }
  EXPECT_GE(written, 10u);
  EXPECT_EQ(names.size(), written);
}

}  // namespace
}  // namespace tinyserve
