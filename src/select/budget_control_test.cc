#include "select/budget_control.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace tinyserve {
namespace {

/// Runs `positions` positions whose share falls as a power of the budget, seen through noise; the mean true share of
/// the last half.
double held(double at_one, double power, int32_t positions, BudgetControl& control) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  double sum = 0;
  for (int32_t p = 0; p < positions; ++p) {
    control.extend(100, 100 + p + 1);
    const double share = std::min(1.0, at_one * std::pow(control.budgets().back(), -power));
    if (p >= positions / 2) sum += share / (positions - positions / 2);
    // What is counted is off by a third, what a position's audit says by more than all of it.
    control.observe({.reads = 16, .counted = 16 * share / 1.5, .audited = 16 * share * (1 + 2 * normal(random))});
  }
  return sum;
}

TEST(BudgetControl, HoldsAShareWhateverTheModelIsLike) {
  for (const double power : {0.3, 0.6, 1.0})
    for (const float epsilon : {0.01f, 0.05f, 0.2f}) {
      BudgetControl control(epsilon, 256);
      EXPECT_TRUE(control.active());
      const double share = held(8.0 * std::pow(8.0, power), power, 400, control);
      const int32_t last = control.budgets().back();
      if (last > BudgetControl::kLeast && last < BudgetControl::kMost) {
        EXPECT_LT(share, epsilon * 1.3) << power << " " << epsilon;
        EXPECT_GT(share, epsilon / 1.3) << power << " " << epsilon;
      }
    }
}

TEST(BudgetControl, KeepsToItsLimitsAndToWhatPositionsHad) {
  BudgetControl control(0.5f, 1);
  EXPECT_FALSE(BudgetControl().active());
  control.extend(10, 13);
  const std::vector<int32_t> first(control.budgets().begin(), control.budgets().end());
  EXPECT_EQ(first, std::vector<int32_t>(3, BudgetControl::kLeast));
  for (int32_t i = 0; i < 100; ++i) control.observe({.reads = 1, .counted = 1, .audited = 1});
  control.extend(10, 12);  // of an earlier position: nothing is new
  EXPECT_EQ(control.budgets().size(), 3u);
  control.extend(10, 14);
  EXPECT_EQ(control.budgets()[2], BudgetControl::kLeast);
  EXPECT_GT(control.budgets()[3], BudgetControl::kLeast);
  for (int32_t i = 0; i < 1000; ++i) control.observe({.reads = 1, .counted = 1, .audited = 1});
  control.extend(10, 15);
  EXPECT_EQ(control.budgets()[4], BudgetControl::kMost);
  for (int32_t i = 0; i < 1000; ++i) control.observe({.reads = 1, .counted = 0, .audited = -0.1});
  control.extend(10, 16);
  EXPECT_EQ(control.budgets()[5], BudgetControl::kLeast);
}

}  // namespace
}  // namespace tinyserve
