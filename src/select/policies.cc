#include "select/policies.h"

#include <fmt/format.h>

#include "base/error.h"
#include "select/policies/makers.h"

namespace tinyserve {
namespace {

constexpr Policy kPolicies[] = {
    {"full", "dense attention", false, true, false, nullptr},
    {"tinyserve", "codes for all keys, exact K and V for the best tokens, estimates for the rest", true, true, false, make_tinyserve},
    {"streaming", "the first page and the newest tokens", false, true, false, make_streaming},
    {"quest", "pages by bounding boxes of their keys", false, false, false, make_quest},
    {"moments", "pages by mean and deviation of their keys", false, false, false, make_moments},
    {"oracle", "tokens by their true attention", false, false, false, make_oracle},
    {"h2o", "tokens that got most attention so far, and the newest", false, false, true, make_h2o},
    {"snapkv", "the prompt's tokens that its last queries attended to", false, false, true, make_snapkv},
    {"pyramidkv", "the same with more in the first layers", false, false, true, make_pyramidkv},
};

}  // namespace

std::span<const Policy> policies() { return kPolicies; }

std::vector<std::string> policy_names(bool serving_only) {
  std::vector<std::string> names;
  for (const Policy& p : kPolicies)
    if (p.serves || !serving_only) names.emplace_back(p.name);
  return names;
}

const Policy& find_policy(const std::string& name) {
  for (const Policy& p : kPolicies)
    if (name == p.name) return p;
  throw InputError(fmt::format("no selection policy is called '{}'; there are: {}", name, fmt::join(policy_names(false), ", ")));
}

std::unique_ptr<Selector> make_selector(const PolicyContext& context) {
  const Policy& policy = find_policy(context.config.policy);
  if (!policy.make) return nullptr;
  if (policy.codes && !context.ops.has_selection())
    throw InputError(fmt::format("the backend '{}' has no kernels for --policy {}", context.ops.name(), policy.name));
  if (policy.codes && !context.maps) throw InputError(fmt::format("--policy {} needs maps of the model's keys, and there are none", policy.name));
  return policy.make(context);
}

}  // namespace tinyserve
