// How often best_fit's few candidates hold the best of all placements (ALGORITHMS section 2), and what is lost where
// they do not: random pools of several sizes, with and without cached content, for several weights. And what a choice
// costs.
//   bench_placement [pools per row] [requests per pool]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kv/placement/oracle.h"

namespace tinyserve {
namespace {

struct Case {
  const char* name;
  PlacementWeights weights;
};

void measure(const Case& c, int32_t num_pages, bool cached, int32_t pools, int32_t requests) {
  int64_t looked = 0, same = 0;
  double worst = 0, most = 0, choosing_ns = 0, all_ns = 0;
  std::vector<double> losses;
  for (int32_t p = 0; p < pools; ++p) {
    RandomPool random(num_pages, {.policy = "best_fit", .weights = c.weights}, 1000u * num_pages + p, cached);
    for (int32_t i = 0; i < requests; ++i, random.step()) {
      const PageRequest request = random.request();
      const auto a = std::chrono::steady_clock::now();
      const PlacementOracle oracle(random.pool(), *random.pool().allocator().objective(), request);
      const auto b = std::chrono::steady_clock::now();
      const int32_t start = random.allocate(request);
      const auto d = std::chrono::steady_clock::now();
      if (!oracle.possible()) continue;
      all_ns += std::chrono::duration<double, std::nano>(b - a).count();
      choosing_ns += std::chrono::duration<double, std::nano>(d - b).count();
      ++looked;
      const double loss = oracle.cost(start) - oracle.least();
      if (loss <= 1e-9 * std::max(1.0, oracle.least())) {
        ++same;
      } else {
        losses.push_back(loss / std::max(oracle.least(), 1e-9));
        worst = std::max(worst, losses.back());
        most = std::max(most, loss);
      }
    }
  }
  std::sort(losses.begin(), losses.end());
  std::printf("%-9s %6d %-6s %7lld %8.2f%% %10.3f%% %10.3f%% %10.3f %9.0f %12.0f\n", c.name, num_pages,
              cached ? "yes" : "no", static_cast<long long>(looked),
              100.0 * static_cast<double>(same) / static_cast<double>(looked),
              losses.empty() ? 0 : 100 * losses[losses.size() / 2], 100 * worst, most,
              choosing_ns / static_cast<double>(looked), all_ns / static_cast<double>(looked));
  std::fflush(stdout);
}

}  // namespace
}  // namespace tinyserve

int main(int argc, char** argv) {
  const int32_t pools = argc > 1 ? std::atoi(argv[1]) : 40, requests = argc > 2 ? std::atoi(argv[2]) : 50;
  std::printf(
      "losses are of the cost, relative to the least cost, among the placements that are not the best;\n"
      "absolute: the worst one, where 1 is a whole request misplaced (f3)\n");
  std::printf("%-9s %6s %-6s %7s %9s %11s %11s %10s %9s %12s\n", "weights", "pages", "cached", "looked", "the best",
              "median loss", "worst loss", "absolute", "ns", "ns for all");
  const tinyserve::PlacementWeights standard;
  auto constant = standard, no_gradient = standard, spread = standard, heat = standard;
  constant.adaptive = false;
  no_gradient.gradient = 0;
  spread.runs_count *= 10;
  heat.heat *= 10;
  for (const tinyserve::Case& c : {tinyserve::Case{"standard", standard},
                                   {"constant", constant},
                                   {"gradient0", no_gradient},
                                   {"runs x10", spread},
                                   {"heat x10", heat}}) {
    for (const int32_t pages : {64, 256, 1024, 4096, 16384}) {
      for (const bool cached : {false, true}) tinyserve::measure(c, pages, cached, pools, requests);
    }
  }
}
