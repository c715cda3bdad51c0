#include <gtest/gtest.h>

#include <string>

#include "kv/placement/oracle.h"

namespace tinyserve {
namespace {

#ifdef TINYSERVE_SANITIZED
constexpr int32_t kPages = 15000;  // of all pools together
#else
constexpr int32_t kPages = 60000;
#endif

struct Case {
  const char* name;
  int32_t pages;
  bool cached;
  PlacementWeights weights;
};

PlacementWeights standard() { return {}; }
PlacementWeights scaled(double PlacementWeights::*which, double factor) {
  PlacementWeights weights;
  weights.*which *= factor;
  return weights;
}

PlacementWeights constant() {
  PlacementWeights weights;
  weights.adaptive = false;
  return weights;
}

class BestFit : public ::testing::TestWithParam<Case> {};

/// ALGORITHMS section 2: of random pools, at least 95% the same optimum as a search of all placements, 2% lost in the
/// rest.
TEST_P(BestFit, FindsTheBestOfAllPlacements) {
  const Case& c = GetParam();
  const int32_t pools = kPages / (c.pages + 400), requests = kPages > 20000 ? 20 : 8;
  int32_t looked = 0, same = 0;
  double worst = 0;
  std::string where;
  for (int32_t p = 0; p < pools; ++p) {
    RandomPool random(c.pages, {.policy = "best_fit", .weights = c.weights}, static_cast<uint32_t>(p), c.cached);
    for (int32_t i = 0; i < requests; ++i, random.step()) {
      const PageRequest request = random.request();
      const PlacementOracle oracle(random.pool(), *random.pool().allocator().objective(), request);
      const int32_t start = random.allocate(request);
      if (!oracle.possible()) continue;
      ++looked;
      const double loss = oracle.cost(start) - oracle.least();
      ASSERT_GE(loss, 0);
      same += loss <= 1e-9;
      if (loss <= 1e-9 || loss <= worst * oracle.least()) continue;
      worst = loss / oracle.least();
      where = "pool " + std::to_string(p) + ", request " + std::to_string(i);
    }
  }
  ASSERT_GT(looked, 20);
  EXPECT_GE(same, 0.95 * looked) << 100.0 * same / looked << "%";
  EXPECT_LE(worst, 0.02) << where;
}

INSTANTIATE_TEST_SUITE_P(
    Pools, BestFit,
    ::testing::Values(Case{"small", 64, false, standard()}, Case{"small_cached", 64, true, standard()},
                      Case{"middle", 512, false, standard()}, Case{"middle_cached", 512, true, standard()},
                      Case{"large", 4096, false, standard()}, Case{"large_cached", 1500, true, standard()},
                      Case{"runs_x10", 512, false, scaled(&PlacementWeights::runs_count, 10)},
                      Case{"runs_x01", 512, true, scaled(&PlacementWeights::runs_count, 0.1)},
                      Case{"constant", 512, true, constant()},
                      Case{"heat_x10", 512, true, scaled(&PlacementWeights::heat, 10)},
                      Case{"heat_x01", 512, true, scaled(&PlacementWeights::heat, 0.1)},
                      Case{"flat", 512, true, scaled(&PlacementWeights::gradient, 0)}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tinyserve
