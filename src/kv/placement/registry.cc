#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

#include "base/error.h"
#include "kv/placement.h"
#include "kv/placement/policies.h"

namespace tinyserve {
namespace {

struct Policy {
  std::string_view name;
  std::unique_ptr<PageAllocator> (*make)(const PlacementConfig&);
};
constexpr Policy kPolicies[] = {
    {"best_fit", make_best_fit}, {"first_fit", make_first_fit}, {"free_queue", make_free_queue},
    {"buddy", make_buddy},       {"random", make_random},
};

constexpr auto kNames = [] {
  std::array<std::string_view, std::size(kPolicies)> names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = kPolicies[i].name;
  return names;
}();

}  // namespace

std::span<const std::string_view> placement_names() { return kNames; }

std::unique_ptr<PageAllocator> make_page_allocator(const PlacementConfig& config) {
  for (const Policy& policy : kPolicies) {
    if (policy.name == config.policy) return policy.make(config);
  }
  throw InputError(fmt::format("no placement policy is called {}; there are {}", config.policy, fmt::join(kNames, ", ")));
}

}  // namespace tinyserve
