// Scores of hand-made tasks against what the model itself says about the same tokens.
#include "eval/task_run.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "model/model_test_util.h"

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
  const std::vector<ReadPolicy> policies = {{"full"}, {"full"}};
  const std::vector<TaskResult> results = run_tasks(runner_, TaskKind::kNeedle, tasks, policies);
  runner_.on_step = nullptr;
  EXPECT_EQ(computed, task_tokens(tasks, 2));
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].asked, 6);
  EXPECT_EQ(results[0].correct, 4);
  EXPECT_EQ(results[0].losses, results[1].losses);  // one prefill serves both, and leaves nothing behind
  EXPECT_EQ(loss_difference(results[1], results[0]).mean, 0);

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
  const std::vector<ReadPolicy> full = {{"full"}};
  const TaskResult r = run_tasks(runner_, TaskKind::kText, std::vector<Task>{task}, full)[0];
  EXPECT_EQ(r.asked, 2);
  EXPECT_EQ(r.correct, 1);
  EXPECT_EQ(r.loss().tokens, 2);
}

TEST(LossDifference, IsOfPairs) {
  const TaskResult a{.losses = {1, 2, 3}}, b{.losses = {0.5, 1.5, 2.5}};
  EXPECT_DOUBLE_EQ(loss_difference(a, b).mean, 0.5);
  EXPECT_DOUBLE_EQ(loss_difference(a, b).standard_error, 0);  // the same for each token, however much they differ
}

}  // namespace
}  // namespace tinyserve::eval
