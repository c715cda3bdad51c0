#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "select/audit.h"

namespace tinyserve {

/// Holds the audited share of attention that was estimated, neither read exactly nor in codes, at a wanted epsilon by
/// moving one sequence's budget. A position's audit alone is mostly noise; what the position counted is known, and what
/// all audits so far say in place of what was counted then is known better and better. So the share is what was counted
/// times the ratio of these sums, and after each position the logarithm of the budget moves by a part of the logarithm
/// of (smoothed share / epsilon). What a position had stays known, so that it attends the same when it is computed
/// again.
class BudgetControl {
 public:
  static constexpr int32_t kLeast = 16, kMost = 16384;  ///< the budget never leaves these

  BudgetControl() = default;
  /// `budget`: of the first position.
  BudgetControl(float epsilon, int32_t budget);

  bool active() const { return epsilon_ > 0; }
  /// Positions from the first sparse one up to `position` exclusive have budgets: those without get the present one.
  void extend(int32_t first, int32_t position);
  /// By position, from the first sparse one on. Valid until the next call of extend().
  std::span<const int32_t> budgets() const { return budgets_; }
  /// What the newest position's audit said.
  void observe(const Audit::Recent& recent);

 private:
  float epsilon_ = 0;
  double log_budget_ = 0, smoothed_ = 0;
  double counted_ = 0, audited_ = 0;  // shares, summed over positions
  int64_t observed_ = 0;
  std::vector<int32_t> budgets_;
};

}  // namespace tinyserve
