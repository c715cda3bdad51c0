#pragma once
// Tasks through a model: each context computed once, then every question under every policy.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/perplexity.h"
#include "eval/sequence_runner.h"
#include "eval/task.h"
#include "select/selector.h"

namespace tinyserve::eval {

/// How the steps that follow the context read its K and V.
struct ReadPolicy {
  std::string name = "full";
  std::function<std::unique_ptr<Selector>()> make;  ///< empty: all of it is read
  SequenceSelection selection;
  /// How long a selector may live: kRun is made for one question and shown the context's last tokens, kTask for all questions of a
  /// context, kForever has no state but what is in the pages. The last two are shared by policies of one name.
  enum class Life { kForever, kTask, kRun } life = Life::kForever;
};

struct TaskResult {
  ReadPolicy policy;
  int64_t asked = 0, correct = 0;  ///< answers; of kText tokens
  std::vector<float> losses;       ///< of every token of every answer
  SelectionAccount account;        ///< of what the steps read where the policy chose
  double seconds = 0;              ///< of those steps

  Loss loss() const;
  /// Bytes that the steps read (codes, means, K and V) over what dense attention reads, in the layers that the policy chooses in.
  double bytes_share() const { return account.dense_bytes > 0 ? account.bytes / account.dense_bytes : 1; }
};

/// The difference of two results' losses, token by token: far surer than that of two means. Both of the same tasks.
Loss loss_difference(const TaskResult& result, const TaskResult& from);

/// Steps of one token begin at the last multiple of the page size before a task's first question.
int32_t first_decoded(const Task& task);

/// Tokens that run_tasks computes, which is what runner.on_step adds up to.
int64_t task_tokens(std::span<const Task> tasks, std::span<const ReadPolicy> policies);

/// One result for each policy. An answer is correct when each of its tokens is the model's first choice given those before it,
/// that is, exactly when greedy generation gives it. Throws as SequenceRunner does.
std::vector<TaskResult> run_tasks(SequenceRunner& runner, TaskKind kind, std::span<const Task> tasks, std::span<const ReadPolicy> policies);

}  // namespace tinyserve::eval
