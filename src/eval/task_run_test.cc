// Scores of hand-made tasks against what the model itself says about the same tokens.
#include "eval/task_run.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "model/model_test_util.h"
#include "select/policies.h"

namespace tinyserve::eval {
namespace {

class TaskRun : public testing::Test {
 protected:
  ThreadPool pool_{2};
  std::unique_ptr<ops::Ops> ops_ = ops::make_ops("cpu", pool_);
  std::unique_ptr<Model> model_ = Model::load(golden_folder() / "qwen2", *ops_, {.dtype = DType::kF32});
  SequenceRunner runner_{*model_, *ops_, pool_, 96};

  std::vector<int32_t> context() {
    std::vector<int32_t> out(70);
    std::mt19937 random(5);
    for (int32_t& t : out) t = static_cast<int32_t>(random() % static_cast<uint32_t>(model_->config().vocab_size));
    return out;
  }
  /// The model's own continuation: tried token by token.
  std::vector<int32_t> greedy(std::vector<int32_t> tokens, int32_t n) {
    const size_t begin = tokens.size();
    while (n-- > 0) {
      const auto at = static_cast<int32_t>(tokens.size());
      tokens.push_back(0);
      runner_.prefill(tokens, 0, at - 1);
      for (int32_t t = 0;; ++t) {
        tokens.back() = t;
        if (runner_.prefill_and_score(tokens, at - 1, at)[0].correct) break;
      }
    }
    return {tokens.begin() + static_cast<std::ptrdiff_t>(begin), tokens.end()};
  }
};

TEST_F(TaskRun, CorrectMeansWhatGreedyGenerationGives) {
  Task task{.context = context()};
  TaskQuestion right{.tokens = {3, 9}, .answer = {2, 5}};
  std::vector<int32_t> so_far = task.context;
  so_far.insert(so_far.end(), {3, 9});
  const std::vector<int32_t> answer = greedy(so_far, 3);
  right.tokens.insert(right.tokens.end(), answer.begin(), answer.end());
  right.tokens.push_back(11);  // what follows the answer is not scored
  TaskQuestion wrong = right;
  wrong.tokens[4] = (wrong.tokens[4] + 1) % model_->config().vocab_size;
  task.questions = {right, wrong, right};

  int64_t computed = 0;
  runner_.on_step = [&](int32_t n) { computed += n; };
  const std::vector<Task> tasks = {task, task};
  const std::vector<ReadPolicy> policies = {{}, {}};
  const std::vector<TaskResult> results = run_tasks(runner_, TaskKind::kNeedle, tasks, policies);
  runner_.on_step = nullptr;
  EXPECT_EQ(computed, task_tokens(tasks, policies));
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].asked, 6);
  EXPECT_EQ(results[0].correct, 4);
  EXPECT_EQ(results[0].losses, results[1].losses);  // one prefill serves both, and leaves nothing behind
  EXPECT_EQ(loss_difference(results[1], results[0]).mean, 0);
  EXPECT_EQ(results[0].bytes_share(), 1);

  std::vector<int32_t> whole = task.context;
  whole.insert(whole.end(), right.tokens.begin(), right.tokens.end());
  const std::vector<Prediction> said = runner_.prefill_and_score(whole, 0, static_cast<int32_t>(whole.size()) - 1);
  ASSERT_EQ(results[0].losses.size(), 18u);
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(results[0].losses[i], said[70 + 2 + i - 1].loss, 1e-3);
}

TEST_F(TaskRun, RunningTextIsScoredTokenByToken) {
  Task task{.context = context()};
  const std::vector<int32_t> answer = greedy(task.context, 2);
  task.questions = {{.tokens = {answer[0], answer[1], (answer[1] + 1) % model_->config().vocab_size}, .answer = {0, 2}}};
  task.questions[0].tokens[1] = (answer[1] + 1) % model_->config().vocab_size;
  const std::vector<ReadPolicy> full = {{}};
  const TaskResult r = run_tasks(runner_, TaskKind::kText, std::vector<Task>{task}, full)[0];
  EXPECT_EQ(r.asked, 2);
  EXPECT_EQ(r.correct, 1);
  EXPECT_EQ(r.loss().tokens, 2);
}

TEST_F(TaskRun, PoliciesDoNotMeetEachOther) {
  const ModelConfig& model = model_->config();
  const auto policy = [&](const std::string& name, int32_t budget) {
    const Policy& p = find_policy(name);
    SelectionConfig config{.policy = name, .from = 0};
    using Life = ReadPolicy::Life;
    return ReadPolicy{.name = name,
                      .make = [=, this, &model] { return make_selector({.ops = *ops_, .config = config, .num_layers = model.num_layers, .num_heads = model.num_heads, .head_dim = model.head_dim}); },
                      .selection = {.from = 0, .exact = budget},
                      .life = p.serves ? Life::kForever : p.prompt ? Life::kRun : Life::kTask};
  };
  std::vector<ReadPolicy> policies = {{}};
  for (const char* name : {"streaming", "quest", "moments", "oracle", "h2o", "snapkv", "pyramidkv"})
    for (const int32_t budget : {1000, 16}) policies.push_back(policy(name, budget));
  Task task{.context = context(), .questions = {{.tokens = {3, 9, 27, 1}, .answer = {1, 4}}, {.tokens = {8, 5, 27, 1}, .answer = {1, 4}}}};
  const std::vector<Task> tasks = {task, task};
  int64_t computed = 0;
  runner_.on_step = [&](int32_t n) { computed += n; };
  const std::vector<TaskResult> results = run_tasks(runner_, TaskKind::kNeedle, tasks, policies);
  runner_.on_step = nullptr;
  EXPECT_EQ(computed, task_tokens(tasks, policies));
  for (size_t i = 1; i < results.size(); ++i) {
    const TaskResult& r = results[i];
    SCOPED_TRACE(r.policy.name + " " + std::to_string(r.policy.selection.exact));
    const bool whole = r.policy.selection.exact == 1000;
    for (size_t t = 0; whole && t < r.losses.size(); ++t) EXPECT_NEAR(r.losses[t], results[0].losses[t], 2e-3);
    EXPECT_GT(r.account.dense_bytes, 0);
    if (whole || r.policy.life != ReadPolicy::Life::kRun) {  // those read the context's last 64 tokens, which are nearly all
      EXPECT_EQ(r.bytes_share() >= 1, whole);
    }
    for (size_t t = 0; t < r.losses.size() / 2; ++t) EXPECT_EQ(r.losses[t], r.losses[t + r.losses.size() / 2]) << "the same task again";
    const std::vector<ReadPolicy> alone = {r.policy};
    EXPECT_EQ(run_tasks(runner_, TaskKind::kNeedle, tasks, alone)[0].losses, r.losses);
  }
}

TEST(LossDifference, IsOfPairs) {
  const TaskResult a{.losses = {1, 2, 3}}, b{.losses = {0.5, 1.5, 2.5}};
  EXPECT_DOUBLE_EQ(loss_difference(a, b).mean, 0.5);
  EXPECT_DOUBLE_EQ(loss_difference(a, b).standard_error, 0);  // the same for each token, however much they differ
}

}  // namespace
}  // namespace tinyserve::eval
