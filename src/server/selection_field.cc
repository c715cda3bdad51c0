#include "server/selection_field.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/api_error.h"

namespace tinyserve {
namespace {

constexpr const char* kMembers[] = {"policy",  "budget", "budget_share", "top_p",
                                    "epsilon", "coded",  "select_from",  "audit"};

}  // namespace

SelectionRequest read_selection(const Fields& fields, const SelectionConfig& server) {
  const OrderedJson* object = fields.find("tinyserve");
  if (!object) return {};
  const Fields inner(*object, "tinyserve.");
  // A misspelt budget would be a wrong answer that nobody notices.
  for (const auto& [name, value] : object->items())
    if (std::find(std::begin(kMembers), std::end(kMembers), name) == std::end(kMembers)) {
      const std::string shown = brief(OrderedJson(name));
      throw bad_field("tinyserve." + shown.substr(1, shown.size() - 2),
                      fmt::format("\"tinyserve\" has no member {}; it has: {}.", shown, fmt::join(kMembers, ", ")));
    }
  const auto whole = [&](const char* name, int64_t low, int64_t high) -> std::optional<int32_t> {
    const auto v = inner.integer(name, low, high);
    return v ? std::optional(static_cast<int32_t>(*v)) : std::nullopt;
  };
  const auto share = [&](const char* name) -> std::optional<float> {
    const auto v = inner.number(name, 0, 1, true);
    return v ? std::optional(static_cast<float>(*v)) : std::nullopt;
  };
  SelectionRequest r;
  r.policy = inner.string("policy", 64);
  r.budget = whole("budget", 1, kMostBudget);
  r.coded = whole("coded", 0, kMostBudget);
  r.from = whole("select_from", 0, 1 << 30);
  r.budget_share = share("budget_share");
  r.top_p = share("top_p");
  r.epsilon = share("epsilon");
  r.audit = inner.boolean("audit");
  if (const auto fault = find_fault(server, r)) {
    const std::string path = inner.path(fault->field.c_str());
    throw bad_field(path, fmt::format("\"{}\" {}.", path, fault->why));
  }
  return r;
}

}  // namespace tinyserve
