#pragma once
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/fake_model.h"

namespace tinyserve::testing {

/// An engine over the fake model with small pages and steps; its invariants are walked after every step.
class EngineTest : public ::testing::Test {
 protected:
  EngineTest() : ops(ops::make_ops("ref", pool)) {
    config.num_pages = 64;
    config.page_size = 4;
    config.max_step_tokens = 32;
    config.max_running = 8;
    config.max_prefill_with_decodes = 16;
  }
  void start() { engine = std::make_unique<Engine>(model, *ops, texts, config, observer); }
  void add(uint64_t id, Request request) {
    if (!engine) start();
    engine->add(id, std::move(request), results[id].sink());
  }
  bool step() {
    const bool worked = engine->step();
    engine->check_invariants();
    return worked;
  }
  void run() {
    while (step()) {
    }
    EXPECT_FALSE(engine->has_work());
    EXPECT_EQ(engine->stats().pages_used, 0);
  }
  /// One request alone.
  Collected run_one(Request request) {
    const uint64_t id = next_id++;
    add(id, std::move(request));
    run();
    return std::move(results[id]);
  }

  static Request greedy(std::vector<int32_t> prompt, int32_t max_tokens) {
    Request r{std::move(prompt), {}};
    r.sampling.temperature = 0;
    r.sampling.max_tokens = max_tokens;
    return r;
  }
  static Request seeded(std::vector<int32_t> prompt, int32_t max_tokens, uint64_t seed) {
    Request r{std::move(prompt), {}};
    r.sampling.seed = seed;
    r.sampling.max_tokens = max_tokens;
    return r;
  }
  static std::vector<int32_t> prompt(int32_t length, int32_t salt = 0) {
    std::vector<int32_t> tokens(length);
    for (int32_t i = 0; i < length; ++i) tokens[i] = static_cast<int32_t>(mix(i * 1000 + salt) % kVocab);
    return tokens;
  }
  static std::vector<int32_t> answer(std::vector<int32_t> prompt, int32_t count) {
    return greedy_oracle(std::move(prompt), count, kVocab);
  }

  static constexpr int32_t kVocab = 61;
  ThreadPool pool{1};
  std::unique_ptr<ops::Ops> ops;
  FakeModel model{kVocab};
  FakeTexts texts;
  EngineConfig config;
  EngineObserver* observer = nullptr;
  std::map<uint64_t, Collected> results;  // before the engine: sinks write here
  std::unique_ptr<Engine> engine;
  uint64_t next_id = 1000;
};

}  // namespace tinyserve::testing
