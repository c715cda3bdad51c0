#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cmath>
#include <locale>
#include <sstream>

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

PlacementWeights parse_placement_weights(const std::string& text) {
  std::array<double, 5> values{};
  std::istringstream in(text);
  in.imbue(std::locale::classic());
  char comma = ',';
  for (size_t i = 0; i < values.size(); ++i) {
    if ((i > 0 && !(in >> comma)) || comma != ',' || !(in >> values[i]) || !std::isfinite(values[i]) || std::abs(values[i]) > 1e9)
      throw InputError(fmt::format("'{}' are no weights: five numbers are wanted, such as 0.02,0.02,1,20,1e-4", text));
  }
  if (in.peek() != std::istringstream::traits_type::eof()) throw InputError(fmt::format("'{}' are more than five weights", text));
  return {.runs = values[0], .distance = values[1], .fit = values[2], .heat = values[3], .gradient = values[4], .adaptive = false};
}

std::unique_ptr<PageAllocator> make_page_allocator(const PlacementConfig& config) {
  for (const Policy& policy : kPolicies) {
    if (policy.name == config.policy) return policy.make(config);
  }
  throw InputError(fmt::format("no placement policy is called {}; there are {}", config.policy, fmt::join(kNames, ", ")));
}

}  // namespace tinyserve
