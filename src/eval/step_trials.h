#pragma once
// The same steps computed densely and under selectors, and how far what the model says then is from what it says when
// it reads everything.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/sequence_runner.h"
#include "eval/task.h"
#include "select/selector.h"

namespace tinyserve::eval {

/// Steps under one selector.
struct StepTrial {
  std::string name;
  /// One for all tasks, or anew for each context (ReadPolicy::Life). Null: dense.
  std::function<std::shared_ptr<Selector>()> make;
  bool per_context = false;
  SequenceSelection selection;

  int64_t steps = 0;
  double divergence = 0;  ///< KL(dense || selector) of the next token's distribution, nats, a sum over steps
  SelectionAccount account;

  double mean_divergence() const { return steps > 0 ? divergence / static_cast<double>(steps) : 0; }
  double bytes_share() const { return account.dense_bytes > 0 ? account.bytes / account.dense_bytes : 1; }
};

/// Computes each task's context densely, seen by `lasting` (which codes its pages), then every question densely and
/// once for each trial, and adds up what differs. Throws as SequenceRunner does.
void run_trials(SequenceRunner& runner, std::span<const Task> tasks, Selector& lasting, std::span<StepTrial> trials);

/// Tokens that this computes, which is what runner.on_step adds up to.
int64_t trial_tokens(std::span<const Task> tasks, size_t trials);

/// KL(p || q) in nats of the distributions that two rows of logits of one length stand for.
double logit_divergence(std::span<const float> p, std::span<const float> q);

}  // namespace tinyserve::eval
