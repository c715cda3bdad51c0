#include "eval/task_run.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "select/choosing_selector.h"

namespace tinyserve::eval {
namespace {

std::vector<int32_t> sequence_of(const Task& task, const TaskQuestion& question) {
  std::vector<int32_t> tokens = task.context;
  tokens.insert(tokens.end(), question.tokens.begin(), question.tokens.end());
  return tokens;
}

void score(TaskKind kind, std::span<const Prediction> answer, TaskResult& result) {
  const auto right = std::count_if(answer.begin(), answer.end(), [](const Prediction& p) { return p.correct; });
  for (const Prediction& p : answer) result.losses.push_back(p.loss);
  if (kind == TaskKind::kText) {
    result.asked += static_cast<int64_t>(answer.size());
    result.correct += right;
  } else {
    ++result.asked;
    result.correct += right == static_cast<int64_t>(answer.size());
  }
}

}  // namespace

Loss TaskResult::loss() const { return mean_loss(losses); }

Loss loss_difference(const TaskResult& result, const TaskResult& from) {
  TS_CHECK(result.losses.size() == from.losses.size(), "results of the same tasks");
  std::vector<float> difference(result.losses);
  for (size_t i = 0; i < difference.size(); ++i) difference[i] -= from.losses[i];
  return mean_loss(difference);
}

int32_t first_decoded(const Task& task) {
  return (static_cast<int32_t>(task.context.size()) - 1) / SequenceRunner::kPageSize * SequenceRunner::kPageSize;
}

int64_t task_tokens(std::span<const Task> tasks, size_t policies) {
  int64_t n = 0;
  for (const Task& t : tasks) {
    n += first_decoded(t);
    for (const TaskQuestion& q : t.questions)
      n += static_cast<int64_t>(policies * (t.context.size() + q.tokens.size() - 1 - static_cast<size_t>(first_decoded(t))));
  }
  return n;
}

std::vector<TaskResult> run_tasks(SequenceRunner& runner, TaskKind kind, std::span<const Task> tasks, std::span<const ReadPolicy> policies,
                                  const Selectors& selectors) {
  std::vector<TaskResult> results;
  for (const ReadPolicy& p : policies) results.push_back({.policy = p});
  std::vector<SelectionAccount> read(policies.size());
  for (const Task& task : tasks) {
    const int32_t first = first_decoded(task), end = static_cast<int32_t>(task.context.size());
    runner.select(selectors.prompt);
    runner.prefill(task.context, 0, first);
    for (size_t i = 0; i < results.size(); ++i) {
      TaskResult& result = results[i];
      for (const TaskQuestion& q : task.questions) {
        const std::vector<int32_t> tokens = sequence_of(task, q);
        const std::unique_ptr<Selector> selector = selectors.make ? selectors.make(result.policy) : nullptr;
        if (result.policy.sees_prompt) {  // the same K and V once more
          runner.select(selector.get());
          runner.prefill(task.context, std::max(0, first - PromptWindow::kRows), first);
        }
        runner.select(selector.get(), {.from = std::max(first, result.policy.from - 1), .exact = result.policy.budget, .coded = result.policy.coded});
        const auto start = std::chrono::steady_clock::now();
        const std::vector<Prediction> said = runner.decode_and_score(tokens, first, static_cast<int32_t>(tokens.size()) - 1);
        result.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        read[i].add(runner.account());
        runner.select(nullptr);
        // said[i] is about token first + i + 1.
        score(kind, std::span(said).subspan(static_cast<size_t>(end + q.answer.begin - 1 - first), static_cast<size_t>(q.answer.end - q.answer.begin)), result);
      }
    }
  }
  for (size_t i = 0; i < results.size(); ++i)
    if (read[i].reads > 0) results[i].bytes_share = read[i].bytes / read[i].dense_bytes;
  return results;
}

}  // namespace tinyserve::eval
