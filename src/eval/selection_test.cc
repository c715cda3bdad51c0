// Every policy on the bundled model: with room for everything it is dense attention, with little room it reads little and still
// computes answers.

#include <gtest/gtest.h>

#include <cmath>

#include "eval/sequence_runner.h"
#include "model/calibration.h"
#include "select/policies.h"

namespace tinyserve::eval {
namespace {

constexpr int32_t kPrompt = 400, kAnswer = 24;

class PolicyTest : public testing::Test {
 protected:
  PolicyTest() {
    for (int32_t i = 0; i < kPrompt + kAnswer + 1; ++i) tokens.push_back((i % 97 * 31 + i / 50) % 4000);
  }
  /// Predictions of the answer under the policy, after a prompt computed while it looks on.
  std::vector<Prediction> run(const SelectionConfig& config) {
    const ModelConfig& c = model->config();
    const auto selector = make_selector({.ops = *ops, .config = config, .maps = &maps, .num_layers = c.num_layers, .num_heads = c.num_heads, .head_dim = c.head_dim});
    runner.select(selector.get(), {.from = kPrompt, .exact = config.budget, .coded = config.coded});
    runner.prefill(tokens, 0, kPrompt);
    std::vector<Prediction> predictions = runner.decode_and_score(tokens, kPrompt, kPrompt + kAnswer);
    account = runner.account();
    runner.select(nullptr);
    return predictions;
  }

  ThreadPool pool{2};
  std::unique_ptr<ops::Ops> ops = ops::make_ops("cpu", pool);
  std::unique_ptr<Model> model = Model::load(TINYSERVE_SOURCE_DIR "/models/tiny-16m-32k", *ops, {});
  std::vector<int32_t> tokens;
  SelectionMaps maps = calibrate(*model, *ops, std::vector<int32_t>(tokens_for_maps()), 512);
  SequenceRunner runner{*model, *ops, pool, kPrompt + kAnswer, {.layers = maps.coded_layers(), .values = true}};
  SelectionAccount account;

  static std::vector<int32_t> tokens_for_maps() {
    std::vector<int32_t> list;
    for (int32_t i = 0; i < 512; ++i) list.push_back((i * 37 + i / 9) % 5000);
    return list;
  }
};

std::vector<std::string> sparse_policies() {
  std::vector<std::string> names = policy_names(false);
  std::erase(names, "full");
  return names;
}

TEST_F(PolicyTest, WithRoomForAllIsDense) {
  const std::vector<Prediction> dense = run({});
  for (const std::string& policy : sparse_policies()) {
    SCOPED_TRACE(policy);
    const std::vector<Prediction> all = run({.policy = policy, .budget = 8 * (kPrompt + kAnswer), .fine_divisor = 1});
    ASSERT_EQ(all.size(), dense.size());
    // K and V are BF16, and so are the dense kernel's probabilities: a few of their units, in nats of a loss of some five.
    for (size_t i = 0; i < all.size(); ++i) EXPECT_NEAR(all[i].loss, dense[i].loss, 0.15) << i;
  }
}

TEST_F(PolicyTest, WithLittleRoomReadsLittle) {
  for (const std::string& policy : sparse_policies()) {
    SCOPED_TRACE(policy);
    const std::vector<Prediction> some = run({.policy = policy, .budget = 48, .coded = 32});
    for (const Prediction& p : some) EXPECT_TRUE(std::isfinite(p.loss));
    const int64_t reads = int64_t{kAnswer} * model->config().num_layers * model->config().num_kv_heads;
    EXPECT_EQ(account.reads, reads);
    EXPECT_LT(account.bytes, 0.65 * account.dense_bytes);
    EXPECT_NEAR((account.exact_share + account.coded_share + account.estimated_share) / static_cast<double>(reads), 1, 1e-3);
    EXPECT_EQ(account.coded_share > 0, policy == "tinyserve");
  }
}

}  // namespace
}  // namespace tinyserve::eval
