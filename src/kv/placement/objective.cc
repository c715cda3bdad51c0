#include "kv/placement/objective.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace tinyserve {
namespace {

/// Sum of 1/(i+1)^2 over the bits i that are set.
constexpr auto kNearness = [] {
  std::array<double, 256> sums{};
  for (int bits = 0; bits < 256; ++bits) {
    for (int i = 0; i < 8; ++i) {
      if (bits >> i & 1) sums[bits] += 1.0 / ((i + 1) * (i + 1));
    }
  }
  return sums;
}();
constexpr double kNearest = 2 * kNearness[255];  // no f2 is smaller than its negative

bool is_own(const PagePool& pool, const PageRequest& request, int32_t page) {
  return pool.owner(page) == request.sequence && request.sequence != 0;
}

}  // namespace

void PlacementObjective::observe(const PageRequest& request) {
  if (!request.sequence_pages.empty()) return;
  const double step = std::max(0.5, median_ / 32);
  if (request.count > median_) median_ += step;
  if (request.count < median_) median_ = std::max(1.0, median_ - step);
}

double PlacementObjective::spread(const RunIndex::Run& run, int32_t count, int32_t left) const {
  const RunIndex& runs = pool_.runs();
  const double right = run.length - count - left;
  const double free = runs.num_free() - count;
  if (free <= 0) return 0;
  const double num = runs.num_runs() - 1 + (left > 0) + (right > 0);
  const double squares = static_cast<double>(runs.sum_of_squares()) - static_cast<double>(run.length) * run.length +
                         static_cast<double>(left) * left + right * right;
  return std::max(0.0, num * squares / (free * free) - 1);
}

double PlacementObjective::nearness(const PageRequest& request, int32_t start) const {
  const RunIndex& runs = pool_.runs();
  const int32_t end = start + request.count;
  const uint32_t before = runs.used_before(start), after = runs.used_after(end);
  double sum = kNearness[before] + kNearness[after];
  if (request.sequence_pages.empty()) return sum;
  // The last page of what it had is its own, whoever it was allocated for; of others the owner tells.
  const int32_t last = request.sequence_pages.back();
  for (uint32_t bits = before; bits; bits &= bits - 1) {
    const int32_t d = std::countr_zero(bits) + 1, page = start - d;
    if (page == last || is_own(pool_, request, page)) sum -= 2.0 / (d * d);
  }
  for (uint32_t bits = after; bits; bits &= bits - 1) {
    const int32_t d = std::countr_zero(bits) + 1, page = end - 1 + d;
    if (page == last || is_own(pool_, request, page)) sum -= 2.0 / (d * d);
  }
  return sum;
}

double PlacementObjective::misfit(const PageRequest& request, const RunIndex::Run& run, int32_t start) const {
  const int32_t end = start + request.count, left = start - run.start, right = run.end() - end;
  const int32_t room = std::min(right, request.expected_pages);
  const bool own = left == 0 && !request.sequence_pages.empty() && request.sequence_pages.back() + 1 == start;
  const int32_t promised = own ? 0 : std::clamp(run.start + run.reserved - start, 0, request.count + room);
  double pages = request.expected_pages - room + promised;
  const int32_t before = std::max(0, left - run.reserved), behind = right - room;
  if (before < median_) pages += before;
  if (behind < median_) pages += behind;
  return pages / (request.count + request.expected_pages);
}

double PlacementObjective::heat(const PageRequest& request, const RunIndex::Run& run, int32_t start) const {
  if (pool_.num_cached() == 0) return 0;
  const int32_t end = std::min(run.end(), start + request.count + request.expected_pages);
  double sum = 0;
  for (int32_t page = start; page < end; ++page) {
    if (pool_.kept(page)) sum += pool_.price(page);
  }
  return sum / (request.count + request.expected_pages);
}

PlacementTerms PlacementObjective::terms(const PageRequest& request, const RunIndex::Run& run, int32_t start) const {
  return {spread(run, request.count, start - run.start), nearness(request, start), misfit(request, run, start),
          heat(request, run, start)};
}

double PlacementObjective::cost(const PageRequest& request, const RunIndex::Run& run, int32_t start,
                                double bound) const {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  PlacementTerms t{};
  t[0] = spread(run, request.count, start - run.start);
  t[2] = misfit(request, run, start);
  if (weigh(t) - weights_.distance * kNearest > bound) return kInfinity;
  t[1] = nearness(request, start);
  if (weigh(t) > bound) return kInfinity;
  t[3] = heat(request, run, start);
  const double sum = weigh(t);
  if (weights_.gradient == 0 || sum > bound) return sum > bound ? kInfinity : sum;
  const bool back = start > run.start, on = start + request.count < run.end();
  if (!back && !on) return sum;
  const PlacementTerms before = back ? terms(request, run, start - 1) : t;
  const PlacementTerms behind = on ? terms(request, run, start + 1) : t;
  double squares = 0;
  for (size_t i = 0; i < t.size(); ++i) {
    const double g = (behind[i] - before[i]) / (back + on);
    squares += g * g;
  }
  return sum + weights_.gradient * squares;
}

}  // namespace tinyserve
