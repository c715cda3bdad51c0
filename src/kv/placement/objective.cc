#include "kv/placement/objective.h"

#include <algorithm>

namespace tinyserve {
void PlacementObjective::observe(const PageRequest& request) {
  if (!request.sequence_pages.empty()) return;
  const double step = std::max(0.5, median_ / 32);
  if (request.count > median_) median_ += step;
  if (request.count < median_) median_ = std::max(1.0, median_ - step);
  if (weights_.adaptive) adapt(request);
}

/// What f1's unit means depends on the pool: the same cut changes it by a millionth in a pool of a million pages. So it
/// is weighed by the difference that it is seen to make.
void PlacementObjective::adapt(const PageRequest& request) {
  constexpr double kMostWeight = 1e9;
  const RunStatistics runs = pool_.run_statistics();
  const double free = runs.free_pages, cut = std::min(request.count, runs.largest);
  if (free <= 0 || cut <= 0) return;
  const double seen = 2 * cut * (runs.largest - 0.5 * cut) / (free * free);
  difference_ += (difference_ == 0 ? 1 : 1 / kMemory) * (seen - difference_);
  weights_.runs = std::min(weights_.runs_count / difference_, kMostWeight);
}

double PlacementObjective::spread(const RunIndex::Run& run, int32_t count, int32_t left) const {
  const RunIndex& runs = pool_.runs();
  const double free = runs.num_free() - count;
  if (free <= 0) return 0;
  const double right = run.length - count - left, length = run.length;
  const double squares =
      static_cast<double>(runs.sum_of_squares()) - length * length + static_cast<double>(left) * left + right * right;
  return 1 - squares / (free * free);
}

double PlacementObjective::neighbours(const PageRequest& request, const RunIndex::Run& run, int32_t start) const {
  const int32_t end = start + request.count;
  const auto of = [&](int32_t page) {
    if (request.sequence_pages.empty()) return 1.0;
    // The last page of what it had is its own, whoever it was allocated for; of others the owner tells.
    const bool own =
        page == request.sequence_pages.back() || (request.sequence != 0 && pool_.owner(page) == request.sequence);
    return own ? -1.0 : 1.0;
  };
  double sum = 0;
  if (start == run.start && start > 0) sum += of(start - 1);
  if (end == run.end() && end < pool_.num_pages()) sum += of(end);
  return sum;
}

double PlacementObjective::misfit(const PageRequest& request, const RunIndex::Run& run, int32_t start) const {
  const int32_t end = start + request.count, left = start - run.start, right = run.end() - end;
  const int32_t room = std::min(right, request.expected_pages), requested = request.count + request.expected_pages;
  int32_t pages = request.expected_pages - room;
  if (!request.sequence_pages.empty()) {
    // What it grows into is its own, and what is behind that was left over before.
    if (request.sequence_pages.back() + 1 == start && left == 0) return static_cast<double>(pages) / requested;
    pages += requested;
  }
  pages += std::clamp(run.reserved - left, 0, request.count + room);
  const int32_t before = std::max(0, left - run.reserved), behind = right - room;
  if (before < median_) pages += before;
  if (behind < median_) pages += behind;
  if (before > 0 && behind > 0) pages += requested;
  return static_cast<double>(pages) / requested;
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
  return {spread(run, request.count, start - run.start), neighbours(request, run, start), misfit(request, run, start),
          heat(request, run, start)};
}

double PlacementObjective::least_elsewhere(const PageRequest& request) const {
  const RunIndex& runs = pool_.runs();
  const double free = std::max(1, runs.num_free() - request.count);
  const double spread = std::max(0.0, 1 - static_cast<double>(runs.sum_of_squares()) / (free * free));
  return weights_.runs * spread - 2 * weights_.distance + weights_.fit;
}

double PlacementObjective::cost(const PageRequest& request, const RunIndex::Run& run, int32_t start,
                                double bound) const {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  PlacementTerms t{};
  t[0] = spread(run, request.count, start - run.start);
  t[2] = misfit(request, run, start);
  if (weigh(t) - 2 * weights_.distance > bound) return kInfinity;
  t[1] = neighbours(request, run, start);
  t[3] = heat(request, run, start);
  const double sum = weigh(t);
  if (weights_.gradient == 0 || sum > bound) return sum > bound ? kInfinity : sum;
  const bool back = start > run.start, on = start + request.count < run.end();
  if (!back && !on) return sum;
  const auto shifted = [&](int32_t by) {
    PlacementTerms s{spread(run, request.count, start + by - run.start), neighbours(request, run, start + by),
                     misfit(request, run, start + by)};
    if (pool_.num_cached() == 0) return s;
    // What its pages and its room gain and lose at their ends.
    const int32_t size = request.count + request.expected_pages, first = start + std::min(by, 0),
                  end = start + size + std::min(by, 0);
    const double low = pool_.price(first), high = end < run.end() ? pool_.price(end) : 0;
    s[3] = t[3] + by * (high - low) / size;
    return s;
  };
  const PlacementTerms before = back ? shifted(-1) : t, behind = on ? shifted(1) : t;
  double squares = 0;
  for (size_t i = 0; i < t.size(); ++i) {
    const double g = (behind[i] - before[i]) / (back + on);
    squares += g * g;
  }
  return sum + weights_.gradient * squares;
}

}  // namespace tinyserve
