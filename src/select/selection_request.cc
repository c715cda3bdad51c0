#include "select/selection_request.h"

#include <fmt/format.h>

#include "select/policies.h"

namespace tinyserve {
namespace {

std::optional<SelectionFault> range(const char* field, const std::optional<int32_t>& v, int32_t low, int32_t high) {
  if (!v || (*v >= low && *v <= high)) return std::nullopt;
  return SelectionFault{field, fmt::format("must be from {} to {}, got {}", low, high, *v)};
}

/// NaN fails, too.
std::optional<SelectionFault> share(const char* field, const std::optional<float>& v, bool one) {
  if (!v || (*v > 0 && (one ? *v <= 1 : *v < 1))) return std::nullopt;
  return SelectionFault{field, fmt::format("must be above 0 and {} 1, got {}", one ? "at most" : "below", *v)};
}

std::optional<SelectionFault> ranges(const SelectionRequest& r) {
  for (const auto& fault : {range("budget", r.budget, 1, kMostBudget), range("coded", r.coded, 0, kMostBudget),
                            range("select_from", r.from, 0, 1 << 30), share("budget_share", r.budget_share, true),
                            share("top_p", r.top_p, true), share("epsilon", r.epsilon, false)})
    if (fault) return fault;
  return std::nullopt;
}

std::optional<SelectionFault> exclusions(const SelectionRequest& r) {
  const auto exclude = [](const char* field, const char* other) {
    return SelectionFault{field, fmt::format("and \"{}\" exclude each other: each says what the budget is", other)};
  };
  if (r.budget_share && r.budget) return exclude("budget_share", "budget");
  if (r.top_p && r.budget_share) return exclude("top_p", "budget_share");
  if (r.epsilon && r.budget) return exclude("epsilon", "budget");
  if (r.epsilon && r.budget_share) return exclude("epsilon", "budget_share");
  if (r.epsilon && r.top_p) return exclude("epsilon", "top_p");
  return std::nullopt;
}

/// What only the policy with codes can do, or any can but "full".
std::optional<SelectionFault> beyond_policy(const Policy& policy, const SelectionRequest& r) {
  const auto given = [&](const char* field, bool there) -> std::optional<SelectionFault> {
    if (!there) return std::nullopt;
    return SelectionFault{field, fmt::format("means nothing under the policy \"{}\"", policy.name)};
  };
  const bool full = !policy.make;
  for (const auto& fault : {given("budget", full && r.budget), given("select_from", full && r.from),
                            given("budget_share", full && r.budget_share), given("coded", !policy.codes && r.coded),
                            given("top_p", !policy.codes && r.top_p), given("epsilon", !policy.codes && r.epsilon),
                            given("audit", !policy.codes && r.audit.value_or(false))})
    if (fault) return fault;
  return std::nullopt;
}

}  // namespace

std::optional<SelectionFault> find_fault(const SelectionConfig& server, const SelectionRequest& r) {
  const std::string& name = r.policy ? *r.policy : server.policy;
  if (name != "full" && name != server.policy)
    return SelectionFault{
        "policy", server.active()
                      ? fmt::format("must be \"full\" or \"{}\", which this server was started with", server.policy)
                      : std::string("must be \"full\": this server was started without --policy")};
  if (auto fault = ranges(r)) return fault;
  if (auto fault = exclusions(r)) return fault;
  if (auto fault = beyond_policy(find_policy(name), r)) return fault;
  const SelectionTerms terms = terms_of(server, r);
  if (terms.epsilon > 0 && !terms.audit)
    return SelectionFault{r.audit ? "audit" : "epsilon", "a wanted epsilon is held by the audit, which is off"};
  return std::nullopt;
}

std::optional<SelectionFault> find_fault(const SelectionConfig& s) {
  const auto wanted = [](float v) { return v == 0 ? std::nullopt : std::optional<float>(v); };
  const SelectionRequest own{.policy = {},
                             .budget = {},
                             .coded = {},
                             .from = {},
                             .budget_share = wanted(s.budget_share),
                             .top_p = wanted(s.top_p),
                             .epsilon = wanted(s.epsilon),
                             .audit = {}};
  if (auto fault = find_fault({.policy = s.policy, .audit = s.audit}, own)) return fault;
  if (!(s.audit_dense >= 0 && s.audit_dense <= 1))
    return SelectionFault{"audit_dense", fmt::format("must be from 0 to 1, got {}", s.audit_dense)};
  if (s.audit_dense > 0 && !s.audit) return SelectionFault{"audit_dense", "checks the audit, which is off"};
  return std::nullopt;
}

SelectionTerms terms_of(const SelectionConfig& server, const SelectionRequest& r) {
  const Policy& policy = find_policy(r.policy ? *r.policy : server.policy);
  if (!policy.make) return {};
  SelectionTerms t{.dense = false, .from = r.from.value_or(server.from), .exact = r.budget.value_or(server.budget)};
  const bool own = r.budget || r.budget_share || r.top_p || r.epsilon;  // says itself what the budget is
  t.exact_share = own ? r.budget_share.value_or(0) : server.budget_share;
  t.top_p = own ? r.top_p.value_or(0) : server.top_p;
  t.epsilon = own ? r.epsilon.value_or(0) : server.epsilon;
  if (!policy.codes) return t;
  t.coded = r.coded.value_or(server.coded);
  // A budget that moves takes the coded tokens with it, unless the request counts them itself.
  if ((t.exact_share > 0 || t.epsilon > 0) && !r.coded)
    t.coded_per_exact = static_cast<float>(server.coded) / static_cast<float>(server.budget);
  t.audit = r.audit.value_or(server.audit);
  return t;
}

}  // namespace tinyserve
