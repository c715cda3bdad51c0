#include "select/selection_request.h"

#include <gtest/gtest.h>

#include <cmath>

#include "select/selector.h"

namespace tinyserve {
namespace {

std::string fault(const SelectionConfig& server, const SelectionRequest& request) {
  const auto found = find_fault(server, request);
  return found ? found->field : "";
}

TEST(SelectionRequest, SaysWhatIsWrongWithWhichField) {
  const SelectionConfig codes{.policy = "tinyserve"}, streaming{.policy = "streaming"}, dense,
      unaudited{.policy = "tinyserve", .audit = false};
  EXPECT_EQ(fault(dense, {}), "");
  EXPECT_EQ(fault(dense, {.policy = "full"}), "");
  EXPECT_EQ(fault(dense, {.policy = "tinyserve"}), "policy");
  EXPECT_EQ(fault(dense, {.budget = 256}), "budget");
  EXPECT_EQ(fault(dense, {.audit = false}), "");
  EXPECT_EQ(fault(dense, {.audit = true}), "audit");
  EXPECT_EQ(fault(codes, {.policy = "full"}), "");
  EXPECT_EQ(fault(codes, {.policy = "full", .from = 10}), "select_from");
  EXPECT_EQ(fault(codes, {.policy = "streaming"}), "policy");
  EXPECT_EQ(fault(codes, {.policy = "none"}), "policy");
  EXPECT_EQ(fault(codes, {.policy = "tinyserve", .budget = 1, .coded = 0, .from = 0, .top_p = 1.0f, .audit = false}),
            "");
  EXPECT_EQ(fault(codes, {.budget = 0}), "budget");
  EXPECT_EQ(fault(codes, {.budget = kMostBudget + 1}), "budget");
  EXPECT_EQ(fault(codes, {.coded = -1}), "coded");
  EXPECT_EQ(fault(codes, {.budget_share = 0.0f}), "budget_share");
  EXPECT_EQ(fault(codes, {.budget_share = 1.0f}), "");
  EXPECT_EQ(fault(codes, {.top_p = 1.1f}), "top_p");
  EXPECT_EQ(fault(codes, {.top_p = std::nanf("")}), "top_p");
  EXPECT_EQ(fault(codes, {.epsilon = 1.0f}), "epsilon");
  EXPECT_EQ(fault(codes, {.budget = 9, .budget_share = 0.1f}), "budget_share");
  EXPECT_EQ(fault(codes, {.budget_share = 0.1f, .top_p = 0.9f}), "top_p");
  EXPECT_EQ(fault(codes, {.budget = 9, .epsilon = 0.1f}), "epsilon");
  EXPECT_EQ(fault(codes, {.budget_share = 0.1f, .epsilon = 0.1f}), "epsilon");
  EXPECT_EQ(fault(codes, {.top_p = 0.1f, .epsilon = 0.1f}), "epsilon");
  EXPECT_EQ(fault(codes, {.epsilon = 0.1f, .audit = false}), "audit");
  EXPECT_EQ(fault(unaudited, {.epsilon = 0.1f}), "epsilon");
  EXPECT_EQ(fault(unaudited, {.epsilon = 0.1f, .audit = true}), "");
  EXPECT_EQ(fault(streaming, {.budget = 9}), "");
  EXPECT_EQ(fault(streaming, {.from = 9, .budget_share = 0.5f}), "");
  EXPECT_EQ(fault(streaming, {.coded = 9}), "coded");
  EXPECT_EQ(fault(streaming, {.epsilon = 0.5f}), "epsilon");
}

TEST(SelectionRequest, AServersOwnSettingsGoTogether) {
  EXPECT_FALSE(find_fault(SelectionConfig{}));
  EXPECT_FALSE(find_fault(SelectionConfig{.policy = "streaming", .budget_share = 0.1f}));
  EXPECT_FALSE(find_fault(SelectionConfig{.policy = "tinyserve", .epsilon = 0.1f, .audit_dense = 1}));
  EXPECT_EQ(find_fault(SelectionConfig{.epsilon = 0.1f})->field, "epsilon");
  EXPECT_EQ(find_fault(SelectionConfig{.policy = "tinyserve", .budget_share = 0.1f, .top_p = 0.1f})->field, "top_p");
  EXPECT_EQ(find_fault(SelectionConfig{.policy = "tinyserve", .epsilon = 0.1f, .audit = false})->field, "epsilon");
  EXPECT_EQ(find_fault(SelectionConfig{.policy = "tinyserve", .audit_dense = 1.5f})->field, "audit_dense");
  EXPECT_EQ(find_fault(SelectionConfig{.policy = "tinyserve", .audit = false, .audit_dense = 0.5f})->field,
            "audit_dense");
}

TEST(SelectionRequest, ARequestsBudgetTakesTheServersPlace) {
  const SelectionConfig server{.policy = "tinyserve", .budget = 100, .coded = 300, .from = 50, .epsilon = 0.1f};
  EXPECT_EQ(terms_of(server).epsilon, 0.1f);
  EXPECT_EQ(terms_of(server).coded_per_exact, 3);
  EXPECT_TRUE(terms_of(server).audit);
  EXPECT_TRUE(terms_of(server, {.policy = "full"}).dense);
  const SelectionTerms fixed = terms_of(server, {.budget = 7});
  EXPECT_EQ(fixed.epsilon, 0);
  EXPECT_EQ(fixed.exact, 7);
  EXPECT_EQ(fixed.coded, 300);
  EXPECT_EQ(fixed.coded_per_exact, 0);
  const SelectionTerms top = terms_of(server, {.top_p = 0.5f});
  EXPECT_EQ(top.top_p, 0.5f);
  EXPECT_EQ(top.exact, 100);
  EXPECT_EQ(top.epsilon, 0);
  EXPECT_EQ(terms_of(server, {.coded = 5}).coded_per_exact, 0);
  EXPECT_EQ(terms_of(server, {.coded = 5}).coded, 5);
  EXPECT_EQ(terms_of(server, {.from = 9}).epsilon, 0.1f);
  EXPECT_FALSE(terms_of({.policy = "streaming"}).audit);
}

TEST(SelectionRequest, RowsGoByPosition) {
  const SelectionConfig server{.policy = "tinyserve", .budget = 100, .coded = 300, .from = 50};
  SequenceSelection s = selection_of(terms_of(server, {.budget_share = 0.1f}), 20);
  EXPECT_EQ(s.from, 49);
  EXPECT_EQ(selection_of(terms_of(server), 60).from, 60);
  EXPECT_EQ(s.row(1, 2, 99).exact, 10);
  EXPECT_EQ(s.row(1, 2, 99).coded, 30);
  EXPECT_EQ(s.row(1, 2, 100).exact, 11);
  const std::vector<int32_t> budgets = {20, 30, 40};
  s.budgets = budgets;
  EXPECT_EQ(s.row(0, 0, 49).exact, 20);
  EXPECT_EQ(s.row(0, 0, 51).exact, 40);
  EXPECT_EQ(s.row(0, 0, 51).coded, 120);
  Audit audit(3);
  s.audit = &audit, s.counted = 50;
  EXPECT_EQ(s.row(0, 0, 49).audit, 0u) << "audited in an earlier step";
  EXPECT_EQ(s.row(0, 0, 50).audit, audit.bits(50));
  EXPECT_GT(selection_of(terms_of(server, {.policy = "full"}), 0).from, 1 << 30);
}

}  // namespace
}  // namespace tinyserve
