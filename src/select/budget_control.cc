#include "select/budget_control.h"

#include <algorithm>
#include <cmath>

namespace tinyserve {
namespace {

// The share falls about as the square root of the budget grows, so that this gain takes back an eighth of a deviation each step; the
// smoothing, over about five positions, is faster, as an integrator must have it. Larger gains follow the noise of single positions.
constexpr double kSmoothing = 0.2, kGain = 0.25;
constexpr double kMostLog = 1.5;  // of a deviation; one audited share says little

}  // namespace

BudgetControl::BudgetControl(float epsilon, int32_t budget)
    : epsilon_(epsilon), log_budget_(std::log(static_cast<double>(std::clamp(budget, kLeast, kMost)))) {}

void BudgetControl::extend(int32_t first, int32_t position) {
  const auto budget = static_cast<int32_t>(std::lround(std::exp(log_budget_)));
  while (first + static_cast<int32_t>(budgets_.size()) < position) budgets_.push_back(budget);
}

void BudgetControl::observe(const Audit::Recent& recent) {
  if (recent.reads == 0) return;
  const double share = recent.estimated / static_cast<double>(recent.reads);
  ++observed_;
  smoothed_ += std::max(kSmoothing, 1.0 / static_cast<double>(observed_)) * (share - smoothed_);
  // An estimate of a share may be negative.
  const double deviation = std::log(std::max(smoothed_, 1e-6) / static_cast<double>(epsilon_));
  log_budget_ += kGain * std::clamp(deviation, -kMostLog, kMostLog);
  log_budget_ = std::clamp(log_budget_, std::log(double{kLeast}), std::log(double{kMost}));
}

}  // namespace tinyserve
