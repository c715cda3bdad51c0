#pragma once
// The placement policies by name, and their configuration.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kv/page_allocator.h"

namespace tinyserve {

/// What each term of the objective counts (kv/placement/objective.h). An adaptive weight of f1 begins as `runs` and
/// follows what is measured in the pool, such that cutting the longest run, rather than taking one whole, counts as
/// much as `runs_count` whole requests misplaced.
struct PlacementWeights {
  double runs = 10;        ///< f1
  double distance = 0;     ///< f2
  double fit = 1;          ///< f3
  double heat = 3;         ///< f4
  double gradient = 1e-4;  ///< lambda
  bool adaptive = true;
  double runs_count = 0.3;
};

struct PlacementConfig {
  std::string policy = "best_fit";  ///< a name of placement_names()
  PlacementWeights weights;
  /// How fast the heat of a cached page decays: after this many steps a use counts half.
  double heat_half_life = 1000;
};

/// Five numbers separated by commas, in the order above, which stay as they are. Throws InputError.
PlacementWeights parse_placement_weights(const std::string& text);

/// Names of all policies, the default first.
std::span<const std::string_view> placement_names();

/// Throws InputError when no policy has that name.
std::unique_ptr<PageAllocator> make_page_allocator(const PlacementConfig& config);

}  // namespace tinyserve
