// What allocate and release cost, by size of the pool: sequences of 1..64 pages come and go in random order in a pool
// that is 90% full, after as many allocations as make its holes what they will stay.
//   bench_allocation [--policy P] [--largest PAGES] [--pairs N] [--fill SHARE]
//
// A pair is one release of a random sequence and one allocation of another's pages, each timed by itself; the two times
// are added. What reading the clock takes is measured and taken off.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kv/page_pool.h"

namespace tinyserve {
namespace {

using Clock = std::chrono::steady_clock;

double ns_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double, std::nano>(b - a).count();
}

double clock_ns() {
  std::vector<double> times(10001);
  for (double& t : times) {
    const auto a = Clock::now(), b = Clock::now();
    t = ns_between(a, b);
  }
  std::nth_element(times.begin(), times.begin() + 5000, times.end());
  return times[5000];
}

struct Percentiles {
  double p50, p90, p99, most, mean;
};

Percentiles percentiles(std::vector<double>& ns) {
  std::sort(ns.begin(), ns.end());
  double sum = 0;
  for (const double t : ns) sum += t;
  const auto at = [&](double q) { return ns[static_cast<size_t>(q * static_cast<double>(ns.size() - 1))]; };
  return {at(0.5), at(0.9), at(0.99), ns.back(), sum / static_cast<double>(ns.size())};
}

void measure(const std::string& policy, int32_t num_pages, int32_t pairs, double fill, double clock) {
  PagePool pool(num_pages, {.policy = policy});
  std::mt19937 random(1);
  const auto size = [&] { return std::uniform_int_distribution<int32_t>(1, 64)(random); };
  std::vector<std::vector<PageRef>> live;
  uint64_t uid = 0;
  int64_t checksum = 0;
  const auto limit = static_cast<int32_t>(fill * num_pages);
  const auto begin = [&](std::vector<PageRef>& refs, int32_t count) {
    refs.reserve(64);  // the caller's memory is not what is measured
    if (!pool.allocate({.count = count, .sequence = ++uid}, refs)) std::abort();
  };
  for (int32_t n; n = size(), pool.num_used() + n <= limit;) begin(live.emplace_back(), n);
  const auto churn = [&](std::vector<double>* allocations, std::vector<double>* releases, std::vector<double>* both) {
    const size_t victim = random() % live.size();
    std::swap(live[victim], live.back());
    std::vector<PageRef>& refs = live.back();
    for (const PageRef& ref : refs)
      checksum += ref.page();  // who ends has just been computed: its table is in the cache
    const auto a = Clock::now();
    refs.clear();
    const auto b = Clock::now();
    int32_t count = size();
    while (count > pool.num_free()) count /= 2;
    const auto c = Clock::now();
    begin(refs, count);
    const auto d = Clock::now();
    if (!both) return;
    const double release = std::max(0.0, ns_between(a, b) - clock),
                 allocation = std::max(0.0, ns_between(c, d) - clock);
    allocations->push_back(allocation);
    releases->push_back(release);
    both->push_back(allocation + release);
  };
  for (size_t i = 0; i < 8 * live.size(); ++i) churn(nullptr, nullptr, nullptr);
  std::vector<double> allocations, releases, both;
  for (auto* times : {&allocations, &releases, &both}) times->reserve(pairs);
  for (int32_t i = 0; i < pairs; ++i) churn(&allocations, &releases, &both);
  const Percentiles sum = percentiles(both), allocation = percentiles(allocations), release = percentiles(releases);
  std::printf("%-10s %9d %8d | %6.0f %6.0f %6.0f %8.0f | %6.0f %6.0f | %6.0f %6.0f\n", policy.c_str(), num_pages,
              pool.run_statistics().num_runs, sum.p50, sum.p90, sum.p99, sum.most, allocation.p50, allocation.p99,
              release.p50, release.p99);
  if (checksum < 0) std::abort();
  std::fflush(stdout);
}

}  // namespace
}  // namespace tinyserve

int main(int argc, char** argv) {
  std::string policy = "best_fit";
  int32_t largest = 10000000, pairs = 200000;
  double fill = 0.9;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--policy") policy = argv[i + 1];
    if (flag == "--largest") largest = std::atoi(argv[i + 1]);
    if (flag == "--pairs") pairs = std::atoi(argv[i + 1]);
    if (flag == "--fill") fill = std::atof(argv[i + 1]);
  }
  const double clock = tinyserve::clock_ns();
  std::printf("ns; reading the clock, %.0f ns, is taken off; pool %.0f%% full\n", clock, 100 * fill);
  std::printf("%-10s %9s %8s | allocate + release            | allocate      | release\n", "", "", "");
  std::printf("%-10s %9s %8s | %6s %6s %6s %8s | %6s %6s | %6s %6s\n", "policy", "pages", "runs", "p50", "p90", "p99",
              "most", "p50", "p99", "p50", "p99");
  for (const auto name : policy == "all" ? tinyserve::placement_names() : std::span<const std::string_view>()) {
    for (int32_t pages = 1000; pages <= largest; pages *= 10)
      tinyserve::measure(std::string(name), pages, pairs, fill, clock);
  }
  if (policy != "all") {
    for (int32_t pages = 1000; pages <= largest; pages *= 10) tinyserve::measure(policy, pages, pairs, fill, clock);
  }
}
