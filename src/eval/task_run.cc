#include "eval/task_run.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"

namespace tinyserve::eval {
namespace {

std::vector<int32_t> sequence_of(const Task& task, const TaskQuestion& question) {
  std::vector<int32_t> tokens = task.context;
  tokens.insert(tokens.end(), question.tokens.begin(), question.tokens.end());
  return tokens;
}

/// Of a context's last tokens that a selector of Life::kRun sees computed: more than any policy looks at.
constexpr int32_t kShown = 512;

int32_t shown_from(int32_t first) { return std::max(0, first - kShown); }

/// Shows what is appended to several selectors; none of them attends.
class Audience final : public Selector {
 public:
  std::vector<Selector*> selectors;

  void begin_step(int32_t num_seqs, std::span<const SequenceSelection> selections) override {
    Selector::begin_step(num_seqs, selections);
    for (Selector* s : selectors) s->begin_step(num_seqs, selections);
  }
  void appended(const AppendedRows& rows) override {
    for (Selector* s : selectors) s->appended(rows);
  }
  void attend(int32_t, const ops::AttentionArgs&, const ops::BatchLayout&, std::span<const ops::SparseRow>) override {
    TS_CHECK(false, "contexts are computed densely");
  }
};

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

int64_t task_tokens(std::span<const Task> tasks, std::span<const ReadPolicy> policies) {
  int64_t n = 0;
  for (const Task& t : tasks) {
    const int32_t first = first_decoded(t);
    n += first;
    for (const TaskQuestion& q : t.questions)
      for (const ReadPolicy& p : policies)
        n += static_cast<int64_t>(t.context.size() + q.tokens.size()) - 1 - first + (p.make && p.life == ReadPolicy::Life::kRun ? first - shown_from(first) : 0);
  }
  return n;
}

std::vector<TaskResult> run_tasks(SequenceRunner& runner, TaskKind kind, std::span<const Task> tasks, std::span<const ReadPolicy> policies) {
  using Life = ReadPolicy::Life;
  std::vector<TaskResult> results;
  for (const ReadPolicy& p : policies) results.push_back({.policy = p});
  std::vector<std::shared_ptr<Selector>> selectors(policies.size());  // null for those that read everything or are made later
  const auto make = [&](Life life) {  // one for all budgets of a policy
    for (size_t i = 0; i < policies.size(); ++i) {
      if (!policies[i].make || policies[i].life != life) continue;
      const size_t same = static_cast<size_t>(std::find_if(policies.begin(), policies.end(), [&](const ReadPolicy& p) { return p.name == policies[i].name; }) - policies.begin());
      selectors[i] = same < i ? selectors[same] : policies[i].make();
    }
  };
  make(Life::kForever);
  Audience lasting;
  for (size_t i = 0; i < policies.size(); ++i)
    if (selectors[i] && std::find(lasting.selectors.begin(), lasting.selectors.end(), selectors[i].get()) == lasting.selectors.end())
      lasting.selectors.push_back(selectors[i].get());
  for (const Task& task : tasks) {
    const int32_t first = first_decoded(task), end = static_cast<int32_t>(task.context.size());
    runner.select(lasting.selectors.empty() ? nullptr : &lasting);
    runner.prefill(task.context, 0, first);
    make(Life::kTask);
    for (size_t i = 0; i < results.size(); ++i) {
      TaskResult& result = results[i];
      const ReadPolicy& policy = result.policy;
      for (const TaskQuestion& q : task.questions) {
        if (policy.make && policy.life == Life::kRun) {
          selectors[i] = policy.make();
          runner.select(selectors[i].get());
          runner.prefill(task.context, shown_from(first), first);
        }
        const std::vector<int32_t> tokens = sequence_of(task, q);
        runner.select(selectors[i].get(), policy.selection);
        const auto start = std::chrono::steady_clock::now();
        const std::vector<Prediction> said = runner.decode_and_score(tokens, first, static_cast<int32_t>(tokens.size()) - 1);
        result.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        result.account.add(runner.account());
        // The n-th prediction is about token first + n + 1.
        score(kind, std::span(said).subspan(static_cast<size_t>(end + q.answer.begin - 1 - first), static_cast<size_t>(q.answer.end - q.answer.begin)), result);
      }
    }
  }
  runner.select(nullptr);
  return results;
}

}  // namespace tinyserve::eval
