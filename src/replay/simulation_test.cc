#include "replay/simulation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "kv/placement.h"
#include "replay/report.h"
#include "replay/synthetic_tokens.h"

namespace tinyserve::replay {
namespace {

using testing::HasSubstr;

struct R {
  double arrival_s;
  int32_t prompt, answer;
  std::vector<uint64_t> names = {};
  double cancel_s = -1;
  uint64_t salt = 0;
};

Trace make_trace(const std::vector<R>& requests, int32_t tokens_per_name = 16) {
  Trace trace{.format = "test", .tokens_per_name = tokens_per_name};
  for (const R& r : requests) {
    trace.requests.push_back({.arrival_s = r.arrival_s,
                              .prompt = r.prompt,
                              .answer = r.answer,
                              .cancel_s = r.cancel_s,
                              .salt = r.salt,
                              .first_name = static_cast<uint32_t>(trace.names.size()),
                              .num_names = static_cast<uint32_t>(r.names.size())});
    trace.names.insert(trace.names.end(), r.names.begin(), r.names.end());
  }
  return trace;
}

SimulationConfig config_of(int32_t num_pages) {
  SimulationConfig c;
  c.num_pages = num_pages;
  c.clock = {.fixed_us = 1000, .prefill_token_us = 10, .decode_token_us = 100, .kv_token_ns = 1000};
  c.check_every_step = true;
  return c;
}

/// Requests at random, some of which share the beginnings of their prompts.
Trace random_trace(uint64_t seed, int count, int32_t longest) {
  std::mt19937_64 random(seed);
  const auto draw = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
  std::vector<R> requests;
  double time_s = 0;
  for (int i = 0; i < count; ++i) {
    R r{.arrival_s = time_s += 0.002 * static_cast<double>(draw(0, 10)),
        .prompt = static_cast<int32_t>(draw(1, longest)),
        .answer = static_cast<int32_t>(draw(0, 60))};
    const uint64_t family = static_cast<uint64_t>(draw(1, 5)) << 32;
    const int64_t shared = draw(0, r.prompt / 16);
    for (int64_t block = 0; block < shared; ++block) r.names.push_back(family + static_cast<uint64_t>(block));
    if (draw(0, 9) == 0) r.answer = 0, r.cancel_s = 0.001 * static_cast<double>(draw(0, 100));
    requests.push_back(r);
  }
  return make_trace(requests);
}

TEST(StepClock, KnownMachines) {
  EXPECT_GT(step_clock("h200").fixed_us, 0);
  EXPECT_GT(step_clock("cpu").prefill_token_us, step_clock("h200").prefill_token_us);
  EXPECT_THROW(step_clock("abacus"), InputError);
}

TEST(Simulation, OneRequestTakesWhatItsStepsCost) {
  const Measurements m = simulate(make_trace({{0, 100, 3}}), config_of(64));
  EXPECT_EQ(m.completed, 1);
  EXPECT_EQ(m.steps, 3);  // the prompt, which yields the first token, and two decodes
  EXPECT_EQ(m.computed_tokens, 102);
  EXPECT_NEAR(m.simulated_s, 3 * 1000e-6 + 100 * 10e-6 + 2 * 100e-6 + (100 + 101 + 102) * 1e-6, 1e-12);
  EXPECT_NEAR(m.mean_ttft_s, 1000e-6 + 100 * 10e-6 + 100 * 1e-6, 1e-7);
  EXPECT_EQ(m.demand.peak, 7);  // 102 tokens are computed: 7 pages
  EXPECT_EQ(m.growths, 0);
}

TEST(Simulation, LongPromptsAreComputedInChunks) {
  SimulationConfig c = config_of(64);
  c.max_running = 4;
  c.max_step_tokens = 32;
  const Measurements m = simulate(make_trace({{0, 100, 1}}), c);
  EXPECT_EQ(m.steps, 4);
  EXPECT_EQ(m.computed_tokens, 100);
}

TEST(Simulation, SharedBeginningsAreFound) {
  const std::vector<uint64_t> a = {1, 2, 3, 4}, b = {1, 2, 7, 8};
  // Pages 1, 2 are shared; the whole of the third prompt but its last token, which must be computed.
  const Measurements m = simulate(make_trace({{0, 64, 2, a}, {1, 64, 2, b}, {2, 64, 2, a}}), config_of(64));
  EXPECT_EQ(m.prompt_tokens, 3 * 64);
  EXPECT_EQ(m.hit_tokens, 32 + 63);
  EXPECT_DOUBLE_EQ(m.hit_rate(), 95.0 / 192);
}

TEST(Simulation, NothingIsSharedAcrossSalts) {
  const std::vector<uint64_t> a = {1, 2, 3, 4};
  const Measurements m = simulate(make_trace({{0, 64, 2, a, -1, 5}, {1, 64, 2, a, -1, 6}, {2, 64, 2, a, -1, 5}}), config_of(64));
  EXPECT_EQ(m.hit_tokens, 63);
}

TEST(Simulation, NothingIsFoundWithoutAPrefixCache) {
  SimulationConfig c = config_of(64);
  c.kv.prefix.policy = PrefixPolicy::kOff;
  EXPECT_EQ(simulate(make_trace({{0, 64, 2, {1, 2, 3, 4}}, {1, 64, 2, {1, 2, 3, 4}}}), c).hit_tokens, 0);
}

TEST(Simulation, GrowthIsCounted) {
  SimulationConfig c = config_of(64);
  c.kv.placement.policy = "first_fit";
  const Measurements m = simulate(make_trace({{0, 16, 50}}), c);  // 65 tokens computed: 5 pages, 4 of them grown
  EXPECT_EQ(m.growths, 4);
  EXPECT_EQ(m.contiguous_growths, 4);
  EXPECT_EQ(m.allocated_pages, 5);
}

TEST(Simulation, PoolTooSmallForAllPreemptsAndStillCompletes) {
  const Measurements m = simulate(make_trace({{0, 100, 200}, {0, 100, 200}, {0, 100, 200}}), config_of(30));
  EXPECT_EQ(m.completed, 3);
  EXPECT_GT(m.preemptions, 0);
  EXPECT_EQ(m.usable_share, 1);
  EXPECT_EQ(m.refused, 0);
  EXPECT_GT(m.page_waits, 0);
}

TEST(Simulation, WhatNeverFitsIsLeftOut) {
  const Measurements m = simulate(make_trace({{0, 100, 2}, {0, 1000, 2}, {1, 100, 2}}), config_of(30));
  EXPECT_EQ(m.too_long, 1);
  EXPECT_EQ(m.completed, 2);
}

TEST(Simulation, ClientsThatLeaveAreForgotten) {
  SimulationConfig c = config_of(8);
  c.max_running = 1;
  // The second one waits behind the first, and leaves; the third is served.
  const Measurements m = simulate(make_trace({{0, 100, 20}, {0, 100, 0, {}, 0.001}, {0, 100, 20}}), c);
  EXPECT_EQ(m.completed, 3);
  EXPECT_EQ(m.computed_tokens, 2 * 119);
}

TEST(Simulation, SpeedScalesArrivals) {
  SimulationConfig c = config_of(64);
  EXPECT_GT(simulate(make_trace({{0, 16, 1}, {10, 16, 1}}), c).simulated_s, 10);
  c.speed = 10;
  const double fast = simulate(make_trace({{0, 16, 1}, {10, 16, 1}}), c).simulated_s;
  EXPECT_GT(fast, 1);
  EXPECT_LT(fast, 1.1);
}

TEST(Simulation, EveryPolicyCompletesRandomTraces) {
  for (const std::string_view policy : placement_names()) {
    int64_t preemptions = 0;
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      const Trace trace = random_trace(seed, 200, 400);
      SimulationConfig c = config_of(40);
      c.kv.placement.policy = policy;
      c.max_running = 16;
      c.max_step_tokens = 128;
      c.max_prefill_with_decodes = 64;
      c.num_samples = 50;
      const Measurements m = simulate(trace, c);
      EXPECT_EQ(m.completed + m.too_long, 200) << policy;
      EXPECT_EQ(m.refused, 0) << policy;
      EXPECT_GT(m.hit_tokens, 0) << policy;
      preemptions += m.preemptions;
      EXPECT_LE(m.demand.peak, 40) << policy;
      EXPECT_GT(m.steady_samples, 20) << policy;
      EXPECT_GE(m.descriptors_mean, 1) << policy;
      EXPECT_GE(m.descriptors_p99, m.descriptors_mean) << policy;
      for (const Sample& s : m.samples) {
        EXPECT_LE(s.used + s.cached, 40);
        EXPECT_GE(s.external_fragmentation, 0);
        EXPECT_LE(s.slot_utilisation, 1);
        EXPECT_LE(s.largest_run, 40 - s.used);
      }
    }
    EXPECT_GT(preemptions, 0) << policy;
  }
}

TEST(Simulation, CompactionJoinsRunsAndPaysForIt) {
  const Trace trace = random_trace(9, 400, 400);
  SimulationConfig c = config_of(400);
  c.kv.placement.policy = "random";
  c.max_running = 8;
  c.clock.kv_token_bytes = 1024;
  const Measurements on = simulate(trace, c);
  c.kv.compaction.bytes_per_step = 0;
  const Measurements off = simulate(trace, c);
  EXPECT_EQ(off.compaction_bytes, 0);
  EXPECT_EQ(off.compaction_s, 0);
  EXPECT_GT(on.compaction_bytes, 0);
  EXPECT_GT(on.compaction_s, 0);
  EXPECT_GT(on.moved_per_won(), 0);
  EXPECT_LT(on.descriptors_mean, off.descriptors_mean);
  EXPECT_EQ(on.completed, off.completed);
}

TEST(Simulation, FragmentationIsReported) {
  SimulationConfig c = config_of(200);
  c.kv.placement.policy = "free_queue";
  c.kv.compaction.bytes_per_step = 0;
  c.max_running = 8;
  const Measurements m = simulate(random_trace(9, 400, 400), c);
  EXPECT_GT(m.f_spatial, 0);
  EXPECT_GT(m.f_access, 0);  // pages are found, or computed, which takes longer
  EXPECT_NEAR(m.f_total, (m.f_spatial + m.f_temporal + m.f_access) / 3, 1e-9);
}

TEST(Simulation, TheSameAgain) {
  const Trace trace = random_trace(5, 200, 400);
  SimulationConfig c = config_of(80);
  c.max_running = 16;
  const Measurements a = simulate(trace, c), b = simulate(trace, c);
  EXPECT_EQ(a.simulated_s, b.simulated_s);
  EXPECT_EQ(a.hit_tokens, b.hit_tokens);
  EXPECT_EQ(a.descriptors_mean, b.descriptors_mean);
  EXPECT_EQ(a.external_fragmentation, b.external_fragmentation);
}

TEST(Simulation, UnlimitedPoolsNeverRunOut) {
  const Trace trace = random_trace(6, 300, 400);
  SimulationConfig c = config_of(1);
  c.max_running = 32;
  c.num_pages = unlimited_pages(trace, c);
  const Measurements m = simulate(trace, c);
  EXPECT_EQ(m.page_waits, 0);
  EXPECT_EQ(m.preemptions, 0);
  EXPECT_GE(m.demand.peak, m.demand.p99);
  EXPECT_GE(m.demand.p99, m.demand.p50);
}

TEST(Simulation, BadConfigurations) {
  const Trace trace = make_trace({{0, 16, 1}});
  EXPECT_THROW(simulate(trace, config_of(0)), InputError);
  SimulationConfig c = config_of(10);
  c.kv.placement.policy = "chance";
  EXPECT_THROW(simulate(trace, c), InputError);
  c = config_of(10);
  c.max_step_tokens = 1;
  EXPECT_THROW(simulate(trace, c), InputError);
}

TEST(SyntheticTokens, EqualNamesAreEqualTokens) {
  const Trace trace = make_trace({{0, 70, 10, {1, 2, 3}}, {0, 40, 10, {1, 9}}, {0, 70, 10, {}}});
  const SyntheticTokens tokens(trace, 1);
  std::vector<int32_t> a, b, c, again;
  tokens.extend(0, 80, a);
  tokens.extend(1, 50, b);
  tokens.extend(2, 80, c);
  for (const int32_t end : {5, 17, 48, 80}) tokens.extend(0, end, again);  // in pieces
  EXPECT_EQ(a, again);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 16, b.begin()));
  for (size_t i = 16; i < 50; ++i) EXPECT_NE(a[i], b[i]);
  for (size_t i = 0; i < 80; ++i) EXPECT_NE(a[i], c[i]);
  for (const int32_t token : a) EXPECT_GE(token, 0);
  std::vector<int32_t> other;
  SyntheticTokens(trace, 2).extend(0, 80, other);
  EXPECT_NE(a, other);
}

TEST(Report, TableAndJson) {
  Measurements base{.policy = "free_queue", .num_pages = 100, .requests = 2, .completed = 2, .descriptors_mean = 8, .external_fragmentation = 0.5};
  Measurements other = base;
  other.policy = "best";
  other.descriptors_mean = 2;
  other.external_fragmentation = 0.1;
  const std::string text = table({base, other});
  EXPECT_THAT(text, HasSubstr("2.00 (0.25x)"));
  EXPECT_THAT(text, HasSubstr("0.100 (0.20x)"));
  EXPECT_THAT(text, testing::Not(HasSubstr("8.00 (")));
  EXPECT_THAT(table({other}), testing::Not(HasSubstr("x)")));
}

}  // namespace
}  // namespace tinyserve::replay
