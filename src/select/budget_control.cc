#include "select/budget_control.h"

#include <algorithm>
#include <cmath>

namespace tinyserve {
namespace {

// The share falls about as the square root of the budget grows, so that this gain takes back an eighth of a deviation
// each step; the smoothing, over about five positions, is faster, as an integrator must have it. Larger gains follow
// the noise of single positions.
constexpr double kSmoothing = 0.2, kGain = 0.25;
constexpr double kMostLog = 1.5;        // of a deviation
constexpr double kPriorPositions = 8;   // with epsilon counted and audited: what is believed before any audit
constexpr double kMostCorrection = 8;   // of what was counted

}  // namespace

BudgetControl::BudgetControl(float epsilon, int32_t budget)
    : epsilon_(epsilon), log_budget_(std::log(static_cast<double>(std::clamp(budget, kLeast, kMost)))) {}

void BudgetControl::extend(int32_t first, int32_t position) {
  const auto budget = static_cast<int32_t>(std::lround(std::exp(log_budget_)));
  while (first + static_cast<int32_t>(budgets_.size()) < position) budgets_.push_back(budget);
}

void BudgetControl::observe(const Audit::Recent& recent) {
  if (recent.reads == 0) return;
  const auto reads = static_cast<double>(recent.reads);
  counted_ += recent.counted / reads, audited_ += recent.audited / reads;
  const double prior = kPriorPositions * double{epsilon_};
  const double correction = std::clamp((audited_ + prior) / (counted_ + prior), 1 / kMostCorrection, kMostCorrection);
  const double share = correction * recent.counted / reads;
  ++observed_;
  smoothed_ += std::max(kSmoothing, 1.0 / static_cast<double>(observed_)) * (share - smoothed_);
  const double deviation = std::log(std::max(smoothed_, 1e-9) / double{epsilon_});
  log_budget_ += kGain * std::clamp(deviation, -kMostLog, kMostLog);
  log_budget_ = std::clamp(log_budget_, std::log(double{kLeast}), std::log(double{kMost}));
}

}  // namespace tinyserve
