// The engine under random load: whatever arrives, is cancelled, shares, is preempted or cut into chunks, every request
// ends, no page leaks, and every answer is the one the request gets alone.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <random>

#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/fake_model.h"
#include "kv/tiers/memory_disk.h"

namespace tinyserve {
namespace {

using testing::Collected;
using testing::FakeModel;
using testing::FakeTexts;

constexpr int32_t kVocab = 23;

/// Prompts with much in common, so that pages are shared.
std::vector<int32_t> make_prompt(std::mt19937& random, int32_t max_length) {
  const int32_t length = 1 + random() % max_length, family = random() % 3, fork = random() % (length + 1);
  std::vector<int32_t> tokens(length);
  for (int32_t i = 0; i < length; ++i)
    tokens[i] = static_cast<int32_t>(testing::mix(i * 7 + family + (i >= fork ? random() % 2 * 1000 : 0)) % kVocab);
  return tokens;
}

Request make_request(std::mt19937& random, int32_t max_context) {
  Request r;
  r.prompt = make_prompt(random, std::max(1, max_context * 2 / 3));
  const int32_t room = max_context - static_cast<int32_t>(r.prompt.size());
  SamplingParams& p = r.sampling;
  p.max_tokens = static_cast<int32_t>(random() % (room + 1));
  if (random() % 4 == 0 && room > 0) p.max_tokens.reset();
  p.n = random() % 3 == 0 ? 1 + random() % 5 : 1;
  p.temperature = random() % 2 ? 0.0f : 1.0f;
  p.seed = random() % 1000;
  if (random() % 4 == 0) p.top_k = 1 + random() % 5;
  if (random() % 4 == 0) p.repetition_penalty = 1.3f, p.frequency_penalty = 0.2f;
  if (random() % 5 == 0) p.logprobs = random() % 4;
  if (random() % 5 == 0) p.prompt_logprobs = random() % 4;
  if (random() % 4 == 0) p.stop = {"5", "1><2", "<3"};
  if (random() % 5 == 0) p.ignore_eos = true;
  if (random() % 6 == 0 && room > 0) p.min_tokens = random() % std::min(room, p.max_tokens.value_or(room) + 1);
  return r;
}

/// What identifies an answer: everything but how it was cut into outputs.
std::string describe(const Collected& c) {
  std::string s;
  auto put = [&](const TokenLogprob& l) { s += fmt::format(" {}:{} {}", l.token, l.logprob, fmt::join(l.top, ",")); };
  for (const auto& l : c.prompt_logprobs) put(l);
  for (const auto& [index, choice] : c.choices) {
    s += fmt::format("\nchoice {}: {}", index, fmt::join(choice.tokens, " "));
    for (const auto& l : choice.logprobs) put(l);
    s += fmt::format(" \"{}\" {} {}", choice.text, static_cast<int>(choice.finish), choice.stop_reason.index());
  }
  return s;
}

struct World {
  ThreadPool threads{1};
  std::unique_ptr<ops::Ops> ops = ops::make_ops("ref", threads);
  FakeModel model{kVocab, 64};
  FakeTexts texts;
  World() { model.set_eos({3}); }
  std::unique_ptr<Engine> engine(const EngineConfig& config) {
    return std::make_unique<Engine>(model, *ops, texts, config, nullptr);
  }
};

EngineConfig random_config(std::mt19937& random, testing::MemoryDisk& disk) {
  EngineConfig c;
  c.page_size = 1 + random() % 6;
  c.num_pages = 1 + random() % 40;
  c.max_running = 1 + random() % 7;
  c.max_step_tokens = c.max_running + random() % 20;
  c.max_prefill_with_decodes = 1 + random() % 12;
  c.kv.prefix.policy = static_cast<PrefixPolicy>(random() % 3);
  c.kv.compaction.random_moves = random() % 2 ? 1 + random() % 6 : 0;
  if (c.kv.prefix.enabled() && random() % 2) c.tiers.host_bytes = int64_t{32} * c.page_size * (1 + random() % 60);
  if (c.kv.prefix.enabled() && random() % 3 == 0) {
    c.tiers.open_disk = [&disk] { return std::make_unique<testing::MemoryFile>(disk); };
    c.tiers.disk_bytes = 1 << 20;
    c.tiers.disk_write_rate = random() % 2 ? 1 << 20 : 0;
  }
  return c;
}

#ifdef TINYSERVE_SANITIZED
constexpr int32_t kMostRequests = 10;
#else
constexpr int32_t kMostRequests = 25;
#endif

RC_GTEST_PROP(EngineProperty, EveryAnswerIsTheOneGivenAlone, ()) {
  std::mt19937 random(*rc::gen::arbitrary<uint32_t>());
  World world;
  testing::MemoryDisk disk;
  const EngineConfig config = random_config(random, disk);
  auto engine = world.engine(config);
  const int32_t count = 1 + random() % kMostRequests;
  std::vector<Request> requests;
  std::vector<Collected> results(count);
  std::vector<bool> cancelled(count, false);
  for (int32_t i = 0; i < count; ++i) requests.push_back(make_request(random, engine->max_context()));
  int32_t next = 0;
  for (int64_t steps = 0; next < count || engine->has_work(); ++steps) {
    RC_ASSERT(steps < 200000);  // it must end
    while (next < count && random() % 3 == 0) {
      engine->add(next, requests[next], results[next].sink());
      ++next;
    }
    if (next > 0 && random() % 40 == 0) {
      const int32_t victim = random() % next;
      if (!results[victim].done) {
        engine->cancel(victim);
        cancelled[victim] = true;
        RC_ASSERT(results[victim].done);
      }
      engine->check_invariants();
    }
    const bool had_work = engine->has_work();
    RC_ASSERT(engine->step() == had_work);  // work always advances
    engine->check_invariants();
  }
  const EngineStats stats = engine->stats();
  RC_ASSERT((stats.pages_used == 0 && stats.running == 0 && stats.waiting == 0 && stats.queued == 0));
  RC_TAG(stats.preemptions > 0 ? "preempted" : "not preempted", stats.prefix_hit_tokens > 0 ? "hits" : "no hits");

  EngineConfig roomy = config;  // alone, in one chunk, nothing shared
  roomy.num_pages = (engine->max_context() + config.page_size - 1) / config.page_size * 8;
  roomy.max_context = engine->max_context();
  roomy.max_running = 8;
  roomy.max_step_tokens = 128;
  roomy.kv.prefix.policy = PrefixPolicy::kOff;
  roomy.tiers = {};
  for (int32_t i = 0; i < count; ++i) {
    RC_ASSERT(results[i].done);
    if (cancelled[i]) continue;
    Collected alone;
    auto fresh = world.engine(roomy);
    fresh->add(0, requests[i], alone.sink());
    while (fresh->step()) {
    }
    RC_ASSERT(describe(results[i]) == describe(alone));
  }
}

}  // namespace
}  // namespace tinyserve
