#include "eval/step_trials.h"

#include <algorithm>
#include <cmath>

#include "eval/task_run.h"

namespace tinyserve::eval {
namespace {

double log_sum_exp(std::span<const float> x) {
  const float most = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const float v : x) sum += std::exp(v - most);
  return most + std::log(sum);
}

/// Steps [first, end) of a question: what the runner's decode_and_score takes.
struct Steps {
  std::vector<int32_t> tokens;
  int32_t first = 0, end = 0;
};

Steps steps_of(const Task& task, const TaskQuestion& question) {
  Steps s{task.context, first_decoded(task)};
  s.tokens.insert(s.tokens.end(), question.tokens.begin(), question.tokens.end());
  s.end = static_cast<int32_t>(s.tokens.size()) - 1;
  return s;
}

}  // namespace

double logit_divergence(std::span<const float> p, std::span<const float> q) {
  const double shift = log_sum_exp(q) - log_sum_exp(p);
  const float most = *std::max_element(p.begin(), p.end());
  double sum = 0, weights = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double weight = std::exp(p[i] - most);
    sum += weight * (double{p[i]} - q[i] + shift), weights += weight;
  }
  return std::max(0.0, sum / weights);
}

int64_t trial_tokens(std::span<const Task> tasks, size_t trials) {
  int64_t n = 0;
  for (const Task& t : tasks) {
    n += first_decoded(t);
    for (const TaskQuestion& q : t.questions)
      n += (static_cast<int64_t>(trials) + 1) *
           (static_cast<int64_t>(t.context.size() + q.tokens.size()) - 1 - first_decoded(t));
  }
  return n;
}

void run_trials(SequenceRunner& runner, std::span<const Task> tasks, Selector& lasting, std::span<StepTrial> trials) {
  std::vector<std::shared_ptr<Selector>> selectors(trials.size());
  std::vector<std::vector<float>> dense;
  for (const Task& task : tasks) {
    runner.select(&lasting);
    runner.prefill(task.context, 0, first_decoded(task));
    for (size_t i = 0; i < trials.size(); ++i)
      if (trials[i].make && (trials[i].per_context || !selectors[i])) selectors[i] = trials[i].make();
    for (const TaskQuestion& question : task.questions) {
      const Steps s = steps_of(task, question);
      dense.clear();
      runner.on_logits = [&](std::span<const float> logits) { dense.emplace_back(logits.begin(), logits.end()); };
      runner.select(nullptr);
      runner.decode_and_score(s.tokens, s.first, s.end);
      for (size_t i = 0; i < trials.size(); ++i) {
        StepTrial& trial = trials[i];
        size_t step = 0;
        runner.on_logits = [&](std::span<const float> logits) {
          trial.divergence += logit_divergence(dense[step++], logits);
        };
        runner.select(selectors[i].get(), trial.selection);
        runner.decode_and_score(s.tokens, s.first, s.end);
        trial.steps += static_cast<int64_t>(step);
        trial.account.add(runner.account());
      }
      runner.on_logits = nullptr;
    }
  }
  runner.select(nullptr);
}

}  // namespace tinyserve::eval
