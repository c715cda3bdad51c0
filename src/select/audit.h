#pragma once
// What an answer can claim of itself (ALGORITHMS 3.2). At every sparse read (position, layer, KV head) the operation
// draws one page of what it estimated and one token that it read in codes, and looks up what these weigh in truth
// (SparseStats::Draw). (true - counted) / probability is an unbiased estimate of the error of all that was estimated,
// or read in codes, by that read; the mean over an answer's reads is one of the answer's, and what was counted plus
// that error is the true share. (The error is what is drawn, not the share: what was counted is known, and its part in
// the variance is none.)
//
// The interval: draws are independent, so the variance of their sum is the sum of their variances, but reads have
// different expectations and one draw each. Those of one layer and head in neighbouring steps nearly have the same, so
// half the squares of successive differences estimate the variances (von Neumann, 1941), each series for itself; a
// plain sample variance counts how layers and heads differ, too. The quantile is Student's, with the degrees of freedom
// of a sum of such estimates (Satterthwaite, 1946). Errors are skewed: much truth behind little count is rare. A sample
// without such a draw has both too small a mean and too small a variance, so the interval is moved by Edgeworth's first
// term for a studentised mean (Hall, 1992): (2 z^2 + 1) / 6 of the sum's skewness, in standard errors.

#include <cstdint>
#include <vector>

#include "ops/ops.h"
#include "select/dense_check.h"

namespace tinyserve {

/// A mean and its 95% confidence interval.
struct Interval {
  double mean = 0, low = 0, high = 0;
};

/// Drawn errors of many reads.
struct AuditedError {
  int64_t draws = 0;
  double sum = 0;       ///< over all reads; those with nothing to draw are 0
  double variance = 0;  ///< of the sum, estimated
  double freedom = 0;  ///< sum of the squared variances of the series, each over the degrees of freedom of its estimate
  double third = 0;    ///< third central moment of the sum, estimated

  void add(const AuditedError& o) {
    draws += o.draws, sum += o.sum, variance += o.variance, freedom += o.freedom, third += o.third;
  }
  /// Of the mean over `reads`.
  Interval interval(int64_t reads) const;
};

/// Sums over reads (position, layer, KV head); those of several answers add up. Shares are of the answer's softmax
/// mass.
struct AuditSums {
  int64_t reads = 0;
  double exact = 0, coded = 0, estimated = 0;  ///< shares as the answer counted them
  AuditedError estimated_error, coded_error;   ///< true mass less what was counted
  /// Of reads that were recomputed densely (--audit-dense):
  int64_t checked = 0;
  double true_estimated = 0, true_coded = 0;  ///< true mass of what was estimated, and read in codes
  double output_error = 0;                    ///< |out - dense| / |dense|

  void add(const AuditSums& o) {
    reads += o.reads, exact += o.exact, coded += o.coded, estimated += o.estimated;
    estimated_error.add(o.estimated_error), coded_error.add(o.coded_error);
    checked += o.checked, true_estimated += o.true_estimated, true_coded += o.true_coded,
        output_error += o.output_error;
  }
};

/// One sequence's audit. Positions come in order, each once; within one, layers and heads in any order.
class Audit {
 public:
  Audit() = default;
  /// Draws depend on `seed`, the tokens followed since, position, layer and head alone.
  explicit Audit(uint64_t seed) : seed_(seed) {}

  /// The sequence's next token: choices of one request draw apart where they part, and alike while they are alike, so
  /// that a budget that follows the audit makes equal pages of equal tokens.
  void follow(int32_t token);
  /// Random bits for SparseRow::audit, never 0.
  uint64_t bits(int32_t position) const;
  /// The same for one layer.
  static uint64_t bits_of_layer(uint64_t bits, int32_t layer);

  void add(int32_t layer, int32_t head, const ops::SparseStats& stats);
  void add(const DenseCheck& check);
  AuditSums sums() const;

  /// Since the last call: reads, and sums of their estimated shares as counted and as audited.
  struct Recent {
    int64_t reads = 0;
    double counted = 0, audited = 0;
  };
  Recent take_recent();

 private:
  /// Errors of one layer and head, in the order of positions.
  struct Series {
    int64_t count = 0, draws = 0;
    double last = 0, sum = 0, differences = 0;  // differences: sum of half the squares of successive ones
    double squares = 0, cubes = 0;
    void add(const ops::SparseStats::Draw& draw);
    AuditedError error() const;
  };
  struct Pair {
    Series estimated, coded;
  };

  uint64_t seed_ = 0;
  std::vector<std::vector<Pair>> layers_;  // [layer][head], grown as they come
  AuditSums sums_;                         // all but the errors
  Recent recent_;
};

}  // namespace tinyserve
