// Losses against a softmax written out in double precision over logits that the model's own test driver gave.
#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "model/model_test_util.h"

namespace tinyserve::eval {
namespace {

constexpr int32_t kContext = 96;
const char* const kModels[] = {"qwen2", "gpt2", "gemma3"};

std::vector<int32_t> tokens_of(int32_t vocab, int32_t n) {
  std::vector<int32_t> out(static_cast<size_t>(n));
  std::mt19937 random(7);
  for (int32_t& t : out) t = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab));
  return out;
}

double direct_loss(const std::vector<float>& logits, int32_t next) {
  double sum = 0;
  for (const float x : logits) sum += std::exp(double{x});
  return std::log(sum) - logits[static_cast<size_t>(next)];
}

struct Runtime {
  explicit Runtime(const std::string& name, const char* backend = "ref")
      : ops(ops::make_ops(backend, pool)), model(Model::load(golden_folder() / name, *ops, {.dtype = DType::kF32})) {}
  ThreadPool pool{2};
  std::unique_ptr<ops::Ops> ops;
  std::unique_ptr<Model> model;
};

TEST(Predict, IsASoftmax) {
  const std::vector<float> logits = {1, 3, -2, 3, 0.5f};
  for (int32_t next = 0; next < 5; ++next) {
    const Prediction p = predict(logits.data(), 5, next);
    EXPECT_NEAR(p.loss, direct_loss(logits, next), 1e-6);
    EXPECT_EQ(p.correct, next == 1) << "of equal logits the lowest id is chosen";
  }
}

TEST(Predict, LargeLogitsDoNotOverflow) {
  const std::vector<float> logits = {1000, 999};
  EXPECT_NEAR(predict(logits.data(), 2, 1).loss, 1 + std::log1p(std::exp(-1.0)), 1e-5);
}

TEST(Predict, BrokenLogitsAreSeen) {
  const std::vector<float> logits = {1, std::nanf(""), 2};
  EXPECT_TRUE(std::isnan(predict(logits.data(), 3, 0).loss));
}

TEST(Perplexity, IsTheMeanLossOfTheSecondHalvesOfChunks) {
  for (const char* name : kModels) {
    for (const bool bos : {false, true}) {
      SCOPED_TRACE(std::string(name) + (bos ? " with BOS" : ""));
      Runtime r(name);
      EvalText text{.tokens = tokens_of(r.model->config().vocab_size, 2 * kContext + 40)};
      if (bos) text.bos = 3;
      SequenceRunner runner(*r.model, *r.ops, r.pool, kContext);
      const Loss loss = perplexity(runner, text, kContext, 2);

      std::vector<int32_t> whole = text.tokens;
      if (bos) whole.insert(whole.begin(), 3);
      TestModel direct(golden_folder() / name, "ref", {.dtype = DType::kF32});
      std::vector<double> losses;
      for (int32_t c = 0; c < 2; ++c) {
        std::vector<int32_t> chunk(whole.begin() + c * kContext, whole.begin() + (c + 1) * kContext), wanted;
        if (bos) chunk[0] = 3;
        for (int32_t i = 0; i < kContext; ++i) wanted.push_back(i);
        const auto rows = direct.step({{c, 0, chunk, wanted}});
        for (int32_t i = kContext / 2; i + 1 < kContext; ++i) losses.push_back(direct_loss(rows[static_cast<size_t>(i)], chunk[static_cast<size_t>(i) + 1]));
      }
      double mean = 0, variance = 0;
      for (const double l : losses) mean += l / losses.size();
      for (const double l : losses) variance += (l - mean) * (l - mean) / (losses.size() - 1);
      EXPECT_EQ(loss.tokens, 2 * (kContext / 2 - 1));
      EXPECT_NEAR(loss.mean, mean, 1e-4);
      EXPECT_NEAR(loss.standard_error, std::sqrt(variance / losses.size()), 1e-4);
    }
  }
}

TEST(SequenceRunner, DecodesToWhatAPrefillSays) {
  for (const char* backend : {"ref", "cpu"}) {
    SCOPED_TRACE(backend);
    Runtime r("qwen2", backend);
    const std::vector<int32_t> tokens = tokens_of(r.model->config().vocab_size, kContext + 1);
    SequenceRunner runner(*r.model, *r.ops, r.pool, kContext + 1);
    int32_t computed = 0;
    runner.on_step = [&](int32_t n) { computed += n; };
    const auto whole = runner.prefill_and_score(tokens, 0, kContext);
    EXPECT_EQ(computed, kContext);
    runner.prefill(tokens, 0, 50);
    for (int run = 0; run < 2; ++run) {  // the prefill serves both
      const auto tail = runner.decode_and_score(tokens, 50, kContext);
      ASSERT_EQ(tail.size(), static_cast<size_t>(kContext - 50));
      for (size_t i = 0; i < tail.size(); ++i) {
        EXPECT_NEAR(tail[i].loss, whole[50 + i].loss, 1e-3);
        EXPECT_EQ(tail[i].correct, whole[50 + i].correct);
      }
    }
  }
}

TEST(SequenceRunner, RefusesWhatTheModelCannotDo) {
  Runtime r("qwen2");
  EXPECT_THROW(SequenceRunner(*r.model, *r.ops, r.pool, r.model->config().max_positions + 1), InputError);
  SequenceRunner runner(*r.model, *r.ops, r.pool, 16);
  const std::vector<int32_t> foreign = {1, r.model->config().vocab_size, 2};
  EXPECT_THROW(runner.prefill(foreign, 0, 2), InputError);
  EXPECT_THROW(runner.prefill_and_score(foreign, 0, 1), InputError);
  const EvalText text{.tokens = {1, 2, 3}};
  EXPECT_THROW(perplexity(runner, text, 16, 1), InputError);
  EXPECT_THROW(perplexity(runner, text, 16, 0), InputError);
}

}  // namespace
}  // namespace tinyserve::eval
