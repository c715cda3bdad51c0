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

namespace tinyserve::eval {

/// How the steps that follow the context read its K and V.
struct ReadPolicy {
  std::string name = "full";
  int32_t budget = 0;  ///< tokens read exactly per KV head and step; 0: the policy has none
  int32_t coded = 0;   ///< SelectionConfig::coded
  int32_t from = 0;    ///< SelectionConfig::from
  bool sees_prompt = false;  ///< Policy::prompt
};

/// What policies other than "full" need of run_tasks' caller.
struct Selectors {
  std::function<std::unique_ptr<Selector>(const ReadPolicy&)> make;  ///< anew for each question
  Selector* prompt = nullptr;  ///< looks on while contexts are computed, and so writes their codes; null: nobody needs any
};

struct TaskResult {
  ReadPolicy policy;
  int64_t asked = 0, correct = 0;  ///< answers; of kText tokens
  std::vector<float> losses;       ///< of every token of every answer
  double bytes_share = 1;          ///< K and V (and what stands for them) read by the steps, over what dense attention reads
  double seconds = 0;              ///< of those steps

  Loss loss() const;
};

/// The difference of two results' losses, token by token: far surer than that of two means. Both of the same tasks.
Loss loss_difference(const TaskResult& result, const TaskResult& from);

/// Steps of one token begin at the last multiple of the page size before a task's first question.
int32_t first_decoded(const Task& task);

/// Tokens that run_tasks computes, which is what runner.on_step adds up to.
int64_t task_tokens(std::span<const Task> tasks, size_t policies);

/// One result for each policy. An answer is correct when each of its tokens is the model's first choice given those before it,
/// that is, exactly when greedy generation gives it. Throws as SequenceRunner does.
std::vector<TaskResult> run_tasks(SequenceRunner& runner, TaskKind kind, std::span<const Task> tasks, std::span<const ReadPolicy> policies,
                                  const Selectors& selectors = {});

}  // namespace tinyserve::eval
