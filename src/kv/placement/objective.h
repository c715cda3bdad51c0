#pragma once
// What a placement costs (ALGORITHMS section 2):  w1 f1 + w2 f2 + w3 f3 + w4 f4 + lambda |g|^2.
//
// A placement puts the n pages of a request at [start, start + n) of one free run; the request is expected to grow by e
// pages more, and what is free behind it up to e pages is its *room*. In units that do not depend on n or the pool:
//
//   f1  1 - (Var(r)/mean(r)^2 + 1) / N = 1 - sum r^2 / (sum r)^2 of the N free runs as they would be: the chance that
//   two
//       free pages lie in different runs. The variance itself is least when the longest run is cut in the middle
//       (docs/kv-memory.md, "The objective")
//   f2  sum of 1/d^2 over used pages, d in pages, cut off at one: used neighbours; pages of the same sequence count
//       negative
//   f3  |requested - allocated| / requested, where requested is n + e: room that is missing; pages promised to another
//       sequence that it would take; what it would leave of the run on either side, beyond its own room and what is
//       promised, if that is less than the median request and so of little use to others; and n + e more each for a
//       split: of the run, with something left on both sides, and of the sequence that does not grow in place
//   f4  heat of the cached pages under the placement and its room, over n + e
//   g   change of f1..f4 if it were shifted by one page (mean of both sides where both are possible)

#include <array>
#include <cstdint>
#include <limits>

#include "kv/page_pool.h"

namespace tinyserve {

using PlacementTerms = std::array<double, 4>;  ///< f1, f2, f3, f4

class PlacementObjective {
 public:
  /// The pool outlives it.
  PlacementObjective(const PagePool& pool, const PlacementWeights& weights) : pool_(pool), weights_(weights) {}

  /// Learns what requests are like, a running median of the sizes of new sequences, and, with adaptive weights, what
  /// difference f1 makes in this pool.
  void observe(const PageRequest& request);
  double median_request() const { return median_; }

  /// `start`: n = request.count pages from there are free, and all in `run`.
  PlacementTerms terms(const PageRequest& request, const RunIndex::Run& run, int32_t start) const;
  /// Infinity instead, when it would be more than `bound`: most candidates are given up after the cheap terms.
  double cost(const PageRequest& request, const RunIndex::Run& run, int32_t start,
              double bound = std::numeric_limits<double>::infinity()) const;
  /// No placement that does not grow in place costs less.
  double least_elsewhere(const PageRequest& request) const;
  /// Those in force.
  const PlacementWeights& weights() const { return weights_; }

 private:
  void adapt(const PageRequest& request);
  double spread(const RunIndex::Run& run, int32_t count, int32_t left) const;
  double neighbours(const PageRequest& request, const RunIndex::Run& run, int32_t start) const;
  double misfit(const PageRequest& request, const RunIndex::Run& run, int32_t start) const;
  double heat(const PageRequest& request, const RunIndex::Run& run, int32_t start) const;
  double weigh(const PlacementTerms& t) const {
    return weights_.runs * t[0] + weights_.distance * t[1] + weights_.fit * t[2] + weights_.heat * t[3];
  }

  const PagePool& pool_;
  PlacementWeights weights_;
  double median_ = 1;
  double difference_ =
      0;  // of f1, between cutting the longest run and taking a whole one: mean of some kMemory sequences
  static constexpr double kMemory = 256;
};

}  // namespace tinyserve
