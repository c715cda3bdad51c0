#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "select/audit.h"

namespace tinyserve {

/// Holds the audited share of attention that was estimated, neither read exactly nor in codes, at a wanted epsilon by moving one
/// sequence's budget: after each position the logarithm of the budget moves by a share of the logarithm of (smoothed audited share /
/// epsilon). What a position had stays known, so that it attends the same when it is computed again.
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
  int64_t observed_ = 0;
  std::vector<int32_t> budgets_;
};

}  // namespace tinyserve
