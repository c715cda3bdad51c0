#include "engine/engine.h"

#include <gmock/gmock.h>

#include <cmath>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "engine/engine_test_util.h"
#include "engine/memory_plan.h"

namespace tinyserve {
namespace {

using testing::Collected;
using ::testing::ElementsAre;
using testing::EngineTest;
using testing::FakeModel;
using ::testing::HasSubstr;

TEST_F(EngineTest, GreedyAnswersAreTheModels) {
  for (int32_t length : {1, 3, 4, 5, 31, 32, 33, 100}) add(length, greedy(prompt(length, length), 21));
  run();
  for (auto& [id, r] : results) {
    EXPECT_TRUE(r.done);
    EXPECT_EQ(r.prompt_tokens, static_cast<int32_t>(id));
    EXPECT_EQ(r.choices[0].tokens, answer(prompt(id, id), 21)) << id;
    EXPECT_EQ(r.choices[0].finish, FinishReason::kLength);
  }
  EXPECT_EQ(engine->stats().prompt_tokens, 1u + 3 + 4 + 5 + 31 + 32 + 33 + 100);
  EXPECT_EQ(engine->stats().generated_tokens, 8u * 21);
}

TEST_F(EngineTest, ChoicesShareThePromptAndCopyOnWrite) {
  config.max_running = 16;
  for (int32_t length : {7, 8, 9}) {
    Request r = greedy(prompt(length, length), 10);
    r.sampling.n = 5;
    add(length, r);
  }
  run();
  for (auto& [id, r] : results) {
    ASSERT_EQ(r.choices.size(), 5u);
    for (auto& [index, c] : r.choices) EXPECT_EQ(c.tokens, answer(prompt(id, id), 10)) << id << " " << index;
  }
  // The prompt was computed once: 4 of 5 choices did not.
  EXPECT_EQ(model.num_rows, 7 + 8 + 9 + 3 * 5 * 9);
}

TEST_F(EngineTest, ChoicesTakePagesOfTheirOwnOnlyWhereTheyDiffer) {
  Request r = seeded(prompt(41), 3, 1);  // 10 full pages and one token
  r.sampling.n = 8;
  add(1, r);
  while (results[1].outputs == 0) step();
  step();  // the last choice writes into the shared page, the seven others have copies
  EXPECT_EQ(engine->stats().pages_used, 11 + 7);
  run();
}

TEST_F(EngineTest, ChoicesOfARequestDifferAndRepeatWithTheSeed) {
  Request r = seeded(prompt(6), 12, 42);
  r.sampling.n = 4;
  const Collected a = run_one(r), b = run_one(r);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(a.choices.at(i).tokens, b.choices.at(i).tokens);
    EXPECT_NE(a.choices.at(i).tokens, a.choices.at((i + 1) % 4).tokens);
  }
  r.sampling.n = 1;
  EXPECT_EQ(run_one(r).choices[0].tokens, a.choices.at(0).tokens) << "stream (seed, 0) whatever n is";
  r.sampling.seed.reset();
  EXPECT_NE(run_one(r).choices[0].tokens, run_one(r).choices[0].tokens) << "unseeded requests differ";
}

TEST_F(EngineTest, MoreChoicesThanMayRunTakeTurns) {
  config.max_running = 3;
  config.num_pages = 16;
  model = FakeModel(kVocab, 64);
  Request r = greedy(prompt(9), 15);
  r.sampling.n = 20;
  const Collected c = run_one(r);
  ASSERT_EQ(c.choices.size(), 20u);
  for (auto& [index, choice] : c.choices) EXPECT_EQ(choice.tokens, answer(prompt(9), 15));
}

TEST_F(EngineTest, NoTokensAskedForScoresThePrompt) {
  Request r = greedy(prompt(10), 0);
  r.sampling.prompt_logprobs = 2;
  r.sampling.n = 2;
  const Collected c = run_one(r);
  ASSERT_EQ(c.choices.size(), 2u);
  for (auto& [index, choice] : c.choices) {
    EXPECT_TRUE(choice.tokens.empty());
    EXPECT_EQ(choice.text, "");
    EXPECT_EQ(choice.finish, FinishReason::kLength);
  }
  EXPECT_EQ(c.prompt_logprobs.size(), 9u);
  EXPECT_EQ(c.prompt_tokens, 10);
}

TEST_F(EngineTest, PromptLogprobsAreThoseOfEveryPosition) {
  const std::vector<int32_t> tokens = prompt(75);
  run_one(greedy(tokens, 1));  // its pages are cached now, but logits of all positions are wanted
  Request r = greedy(tokens, 3);
  r.sampling.prompt_logprobs = 3;
  r.sampling.logprobs = 1;
  const Collected c = run_one(r);
  EXPECT_EQ(c.cached_prompt_tokens, 0);
  ASSERT_EQ(c.prompt_logprobs.size(), 74u);
  std::vector<float> logits(kVocab);
  for (int32_t i = 0; i < 74; ++i) {
    testing::hash_logits(std::span(tokens).first(i + 1), logits);
    const Candidate best = argmax(logits.data(), kVocab);
    const double norm = log_sum_exp(logits.data(), kVocab, best.value);
    EXPECT_EQ(c.prompt_logprobs[i].token, tokens[i + 1]);
    EXPECT_NEAR(c.prompt_logprobs[i].logprob, logits[tokens[i + 1]] - norm, 1e-5);
    ASSERT_EQ(c.prompt_logprobs[i].top.size(), 3u);
    EXPECT_EQ(c.prompt_logprobs[i].top[0].first, best.id);
  }
  ASSERT_EQ(c.choices.at(0).logprobs.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(c.choices.at(0).logprobs[i].token, c.choices.at(0).tokens[i]);
    EXPECT_EQ(c.choices.at(0).logprobs[i].top[0].first, c.choices.at(0).tokens[i]);
  }
}

TEST_F(EngineTest, PrefixHitsSaveWorkAndChangeNoToken) {
  // Takes a cached page only when no empty one is left. What the default gives up for a better place is a matter of
  // measured times, and so may be any page here.
  config.kv.placement.policy = "free_queue";
  const std::vector<int32_t> shared = prompt(50);
  std::vector<int32_t> longer = shared;
  for (int32_t t : prompt(30, 7)) longer.push_back(t);
  EXPECT_EQ(run_one(greedy(shared, 5)).cached_prompt_tokens, 0);
  const int64_t before = model.num_rows;
  const Collected again = run_one(greedy(shared, 5));
  EXPECT_EQ(again.cached_prompt_tokens, 49) << "12 pages, and one token of the page the answer filled";
  EXPECT_EQ(again.choices.at(0).tokens, answer(shared, 5));
  EXPECT_EQ(model.num_rows - before, 1 + 4);
  const Collected more = run_one(greedy(longer, 5));
  EXPECT_EQ(more.cached_prompt_tokens, 50);
  EXPECT_EQ(more.choices.at(0).tokens, answer(longer, 5));
  EXPECT_EQ(engine->stats().prefix_query_tokens, 50u + 50 + 80);
  EXPECT_EQ(engine->stats().prefix_hit_tokens, 99u);
  // Of a prompt of whole pages the last token is computed again: something must give logits.
  EXPECT_EQ(run_one(greedy(prompt(48), 5)).cached_prompt_tokens, 47);
  // An answer is cached like a prompt: the next turn of a conversation finds it.
  std::vector<int32_t> turn = shared;
  for (int32_t t : answer(shared, 5)) turn.push_back(t);
  turn.push_back(1);
  EXPECT_EQ(run_one(greedy(turn, 1)).cached_prompt_tokens, 52) << "its last page was not full";
}

TEST_F(EngineTest, RunningRequestsShareAsWell) {
  std::vector<int32_t> a = prompt(100), b = a;
  b.back() = 3, b[99] = 4;
  add(1, greedy(a, 30));
  add(2, greedy(b, 30));  // admitted while the first is computed: 32 rows a step
  run();
  EXPECT_GE(results[2].cached_prompt_tokens, 64);
  EXPECT_EQ(results[1].choices[0].tokens, answer(a, 30));
  EXPECT_EQ(results[2].choices[0].tokens, answer(b, 30));
}

TEST_F(EngineTest, WithoutAPrefixCacheNothingIsKept) {
  config.kv.prefix.policy = PrefixPolicy::kOff;
  run_one(greedy(prompt(50), 5));
  EXPECT_EQ(engine->stats().pages_cached, 0);
  EXPECT_EQ(run_one(greedy(prompt(50), 5)).cached_prompt_tokens, 0);
}

TEST_F(EngineTest, PreemptionChangesNoToken) {
  config.num_pages = 20;
  for (int i = 0; i < 6; ++i) add(i, i % 2 ? greedy(prompt(10 + i, i), 40) : seeded(prompt(10 + i, i), 40, i));
  run();
  EXPECT_GT(engine->stats().preemptions, 0u);
  config.num_pages = 64;
  start();
  for (int i = 0; i < 6; ++i) {
    if (i % 2) {
      EXPECT_EQ(results[i].choices[0].tokens, answer(prompt(10 + i, i), 40));
    }
    const Collected alone = run_one(i % 2 ? greedy(prompt(10 + i, i), 40) : seeded(prompt(10 + i, i), 40, i));
    EXPECT_EQ(results[i].choices[0].tokens, alone.choices.at(0).tokens);
    EXPECT_EQ(results[i].choices[0].text, alone.choices.at(0).text);
  }
}

TEST_F(EngineTest, TheLatestIsPreemptedAndGoesFirstAgain) {
  config.num_pages = 12;
  config.kv.prefix.policy = PrefixPolicy::kOff;
  for (int i = 0; i < 3; ++i) add(i, greedy(prompt(8, i), 30));
  std::vector<uint64_t> order;
  while (step()) {
    for (auto& [id, r] : results) {
      if (r.done && std::find(order.begin(), order.end(), id) == order.end()) order.push_back(id);
    }
  }
  EXPECT_GT(engine->stats().preemptions, 0u);
  EXPECT_THAT(order, ElementsAre(0, 1, 2));
}

TEST_F(EngineTest, ASequenceMayFillTheWholePool) {
  config.num_pages = 10;
  start();
  EXPECT_EQ(engine->max_context(), 40);
  for (uint64_t id : {1, 2}) add(id, greedy(prompt(25, id), 15));
  run();
  for (auto& [id, r] : results) EXPECT_EQ(r.choices[0].tokens, answer(prompt(25, id), 15));
  Request r = greedy(prompt(10), 1);
  r.sampling.max_tokens.reset();
  EXPECT_EQ(run_one(r).choices[0].tokens.size(), 30u) << "without a limit: up to the context";
  EXPECT_THROW(add(9, greedy(prompt(26), 15)), InputError);
}

TEST_F(EngineTest, DecodesKeepFlowingWhileAPromptComesIn) {
  add(1, greedy(prompt(4), 40));
  step();
  add(2, greedy(prompt(160), 1));
  int steps = 0;
  while (!results[2].done) {
    const size_t before = results[1].choices[0].tokens.size();
    step();
    ++steps;
    EXPECT_EQ(results[1].choices[0].tokens.size(), before + 1);
  }
  EXPECT_EQ(steps, 10) << "16 rows of the prompt a step";
  run();
}

TEST_F(EngineTest, FirstComeFirstServed) {
  for (int i = 0; i < 30; ++i) add(i, greedy(prompt(20, i), 2));
  std::vector<uint64_t> order;
  while (step()) {
    for (auto& [id, r] : results) {
      if (r.outputs > 0 && std::find(order.begin(), order.end(), id) == order.end()) order.push_back(id);
    }
  }
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_EQ(order.size(), 30u);
}

TEST_F(EngineTest, CancelFreesPagesAtOnce) {
  for (int i = 0; i < 12; ++i) add(i, greedy(prompt(20, i), 50));
  for (int i = 0; i < 5; ++i) step();
  for (int i = 0; i < 12; ++i) {
    engine->cancel(i);
    engine->check_invariants();
    EXPECT_TRUE(results[i].done);
    EXPECT_EQ(results[i].choices[0].finish, FinishReason::kAbort);
    EXPECT_EQ(results[i].choices[0].error, "");
  }
  EXPECT_EQ(engine->stats().pages_used, 0);
  EXPECT_FALSE(engine->has_work());
  engine->cancel(3);    // gone
  engine->cancel(999);  // never was
  Request r = greedy(prompt(20), 50);
  r.sampling.n = 3;
  add(100, r);
  engine->cancel(100);
  EXPECT_EQ(results[100].choices.size(), 3u);
}

TEST_F(EngineTest, AFullQueueRefuses) {
  config.max_queued = 4;
  for (int i = 0; i < 4; ++i) add(i, greedy(prompt(5), 2));
  EXPECT_THROW(add(4, greedy(prompt(5), 2)), QueueFull);
  step();  // all run now
  add(5, greedy(prompt(5), 2));
  run();
}

TEST_F(EngineTest, StopsAtEosStopTokensAndStopStrings) {
  const std::vector<int32_t> full = answer(prompt(9), 20);
  // Token 6 of the answer, if it did not occur before.
  ASSERT_EQ(std::find(full.begin(), full.begin() + 6, full[6]), full.begin() + 6);
  auto text = [&](int count) {
    std::string s;
    for (int i = 0; i < count; ++i) s += texts.token_bytes(full[i]);
    return s;
  };
  Request r = greedy(prompt(9), 20);
  r.sampling.stop_token_ids = {full[6]};
  Collected::Choice c = run_one(r).choices[0];
  EXPECT_EQ(c.finish, FinishReason::kStop);
  EXPECT_EQ(std::get<int32_t>(c.stop_reason), full[6]);
  EXPECT_EQ(c.tokens.size(), 7u);
  EXPECT_EQ(c.text, text(6));
  r.sampling.include_stop_in_output = true;
  EXPECT_EQ(run_one(r).choices[0].text, text(7));

  r = greedy(prompt(9), 20);
  const std::string stop = texts.token_bytes(full[4]).substr(1) + texts.token_bytes(full[5]).substr(0, 2);
  r.sampling.stop = {"nowhere", stop};
  c = run_one(r).choices[0];
  EXPECT_EQ(c.finish, FinishReason::kStop);
  EXPECT_EQ(std::get<std::string>(c.stop_reason), stop);
  EXPECT_EQ(c.tokens.size(), 6u) << "tokens generated stay";
  EXPECT_EQ(c.text, text(4) + "<") << "the text is cut before the stop";
  r.sampling.max_tokens = 6;
  EXPECT_EQ(run_one(r).choices[0].finish, FinishReason::kStop) << "a stop string in the last token wins over length";
  r.sampling.max_tokens = 5;
  EXPECT_EQ(run_one(r).choices[0].text, text(5)) << "what was held back is shown at the end";

  model.set_eos({full[6]});
  start();
  r = greedy(prompt(9), 20);
  c = run_one(r).choices[0];
  EXPECT_EQ(c.finish, FinishReason::kStop);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(c.stop_reason));
  EXPECT_EQ(c.tokens.size(), 7u);
  EXPECT_EQ(c.text, text(6));
  r.sampling.ignore_eos = true;
  EXPECT_EQ(run_one(r).choices[0].tokens, full);
}

TEST_F(EngineTest, MinTokensPutOffEveryKindOfStop) {
  const std::vector<int32_t> full = answer(prompt(9), 3);
  model.set_eos({full[2]});
  Request r = greedy(prompt(9), 30);
  r.sampling.min_tokens = 10;
  r.sampling.stop_token_ids = {full[1]};
  r.sampling.stop = {"<"};
  const Collected::Choice c = run_one(r).choices[0];
  EXPECT_EQ(c.tokens.size(), 11u) << "any token has a <, so the first that may stop does";
  EXPECT_EQ(c.tokens[0], full[0]);
  EXPECT_NE(c.tokens[1], full[1]) << "masked";
  EXPECT_EQ(c.finish, FinishReason::kStop);
  EXPECT_EQ(std::get<std::string>(c.stop_reason), "<");
}

TEST_F(EngineTest, TextIsWholeCharactersAndSpecialTokensAreSkipped) {
  const std::vector<int32_t> full = answer(prompt(9), 8);
  for (int32_t i = 0; i < kVocab; ++i) texts.texts[i] = "a";
  const std::string euro = "\u20ac";
  texts.texts[full[1]] = euro.substr(0, 1);
  texts.texts[full[2]] = euro.substr(1, 1);
  texts.texts[full[3]] = euro.substr(2, 1) + "b";
  texts.texts[full[7]] = euro.substr(0, 2);
  ASSERT_EQ(std::set<int32_t>(full.begin(), full.end()).size(), 8u);
  texts.special = {full[5]};
  texts.texts[full[5]] = "<special>";
  std::vector<std::string> deltas;
  start();
  engine->add(1, greedy(prompt(9), 8), [&](Output&& o) { deltas.push_back(o.text); });
  run();
  EXPECT_THAT(deltas, ElementsAre("a", "", "", euro + "b", "a", "", "a", "\ufffd"));
  Request r = greedy(prompt(9), 8);
  r.sampling.skip_special_tokens = false;
  EXPECT_EQ(run_one(r).choices[0].text, "a" + euro + "ba<special>a\ufffd");
}

TEST_F(EngineTest, LogitsThatAreNoNumbersEndThatRequestOnly) {
  set_log_level(LogLevel::kOff);
  model = FakeModel(kVocab, 512, [](std::span<const int32_t> tokens, std::span<float> logits) {
    testing::hash_logits(tokens, logits);
    if (tokens[0] == 60 && tokens.size() > 12) logits[17] = std::nanf("");
  });
  std::vector<int32_t> bad = prompt(10);
  bad[0] = 60;
  add(1, greedy(bad, 20));
  add(2, greedy(prompt(10), 20));
  Request r = greedy(bad, 20);
  r.sampling.n = 3;
  add(3, r);
  run();
  set_log_level(LogLevel::kInfo);
  EXPECT_EQ(results[1].choices[0].finish, FinishReason::kAbort);
  EXPECT_THAT(results[1].choices[0].error, HasSubstr("NaN"));
  EXPECT_EQ(results[1].choices[0].tokens.size(), 3u);
  EXPECT_EQ(results[2].choices[0].tokens, answer(prompt(10), 20));
  EXPECT_TRUE(results[3].done);
  for (auto& [index, c] : results[3].choices) EXPECT_EQ(c.finish, FinishReason::kAbort);
}

TEST_F(EngineTest, AnExceptionInAStepEndsItsRequestsAndLeaksNothing) {
  set_log_level(LogLevel::kOff);
  for (int i = 0; i < 20; ++i) add(i, greedy(prompt(30, i), 20));
  for (int i = 0; i < 3; ++i) step();
  model.on_forward = [](const Step&) { throw std::bad_alloc(); };
  step();
  EXPECT_EQ(engine->stats().running, 0);
  model.on_forward = nullptr;
  run();
  set_log_level(LogLevel::kInfo);
  int aborted = 0;
  for (auto& [id, r] : results) {
    EXPECT_TRUE(r.done);
    if (r.choices[0].finish == FinishReason::kAbort) {
      ++aborted;
      EXPECT_NE(r.choices[0].error, "");
    } else {
      EXPECT_EQ(r.choices[0].tokens, answer(prompt(30, id), 20));
    }
  }
  EXPECT_GT(aborted, 0);
  EXPECT_LT(aborted, 20);
}

TEST_F(EngineTest, AReceiverThatThrowsLosesItsRequestOnly) {
  set_log_level(LogLevel::kOff);
  start();
  int calls = 0;
  engine->add(1, greedy(prompt(10), 20), [&](Output&&) {
    if (++calls > 3) throw std::runtime_error("gone");
  });
  add(2, greedy(prompt(10), 20));
  run();
  set_log_level(LogLevel::kInfo);
  EXPECT_EQ(calls, 5) << "three outputs, the one that threw, and the abort";
  EXPECT_EQ(results[2].choices[0].tokens, answer(prompt(10), 20));
}

TEST_F(EngineTest, TheObserverHearsOfEverything) {
  struct Ear : EngineObserver {
    int queue = 0, first = 0, inter = 0, steps = 0;
    bool early = false;
    std::vector<std::string> finished;
    int64_t prompt = 0, generated = 0;
    void on_queue_time(double s) override { ++queue, early |= s < 0; }
    void on_first_token(double s) override { ++first, early |= s < 0; }
    void on_inter_token(double s) override { ++inter, early |= s < 0; }
    void on_finish(double s, int64_t p, int64_t g, const char* reason) override {
      EXPECT_GE(s, 0);
      finished.push_back(reason);
      prompt += p, generated += g;
    }
    void on_step(const EngineStats& stats) override {
      EXPECT_EQ(stats.pages_total, 64);
      ++steps;
    }
  } ear;
  observer = &ear;
  Request r = greedy(prompt(10), 5);
  r.sampling.n = 3;
  add(1, r);
  add(2, greedy(prompt(11), 7));
  add(3, greedy(prompt(12), 0));
  run();
  EXPECT_FALSE(ear.early);
  EXPECT_EQ(ear.queue, 3);
  EXPECT_EQ(ear.first, 2);
  EXPECT_EQ(ear.inter, 3 * 4 + 6);
  EXPECT_EQ(ear.finished, std::vector<std::string>(3, "length"));
  EXPECT_EQ(ear.prompt, 33);
  EXPECT_EQ(ear.generated, 22);
  EXPECT_EQ(ear.steps, model.num_forwards);
}

TEST_F(EngineTest, RefusesConfigurationsThatCannotWork) {
  auto refuses = [&](auto edit) {
    EngineConfig bad = config;
    edit(bad);
    EXPECT_THROW(Engine(model, *ops, texts, bad, nullptr), InputError);
  };
  refuses([](EngineConfig& c) { c.max_step_tokens = 0; });
  refuses([](EngineConfig& c) { c.max_running = 0; });
  refuses([](EngineConfig& c) { c.max_queued = 0; });
  refuses([](EngineConfig& c) { c.page_size = 0; });
  refuses([](EngineConfig& c) { c.max_context = 513; });
  refuses([](EngineConfig& c) { c.max_context = 300; });  // more than 64 pages of 4
  refuses([](EngineConfig& c) { c.num_pages = 0, c.kv_bytes = 1; });
  refuses([](EngineConfig& c) { c.num_pages = int64_t{1} << 40; });
}

TEST(MemoryPlan, DividesWhatThereIs) {
  const KvShape shape{.num_layers = 8, .kv_heads = 2, .head_dim = 64, .dtype = DType::kBF16};
  constexpr int64_t kGiB = int64_t{1} << 30;
  EngineConfig config;
  MemoryPlan plan = plan_memory(shape, 32768, 123, config, 22 * kGiB);
  EXPECT_EQ(plan.kv_token_bytes, 4096);
  EXPECT_EQ(plan.kv_bytes, 4 * kGiB);
  EXPECT_EQ(plan.kv_tokens, kGiB / 1024);
  EXPECT_EQ(plan.max_context, 32768);
  EXPECT_EQ(plan.weight_bytes, 123);
  plan = plan_memory(shape, 32768, 0, config, kGiB / 8);  // a small machine: half of it, and a shorter context
  EXPECT_EQ(plan.kv_bytes, kGiB / 16);
  EXPECT_EQ(plan.max_context, 16384);
  config.max_running = 2;
  EXPECT_EQ(plan_memory(shape, 2048, 0, config, 22 * kGiB).kv_tokens, 4096) << "no more than can be used";
  config.max_running = 64;
  config.kv_bytes = kGiB;
  EXPECT_EQ(plan_memory(shape, 32768, 0, config, kGiB / 8).kv_bytes, kGiB);
  config.max_context = 32768;
  config.kv_bytes = kGiB / 16;
  EXPECT_THROW(plan_memory(shape, 32768, 0, config, 22 * kGiB), InputError);
  EXPECT_GT(available_memory(), 1 << 20);
}

}  // namespace
}  // namespace tinyserve
