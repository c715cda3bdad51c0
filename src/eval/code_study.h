#pragma once
// One query of one KV head, every logit known in three ways: true, of the coarse codes, of the fine codes. What
// `tinyserve` reads and estimates of it is played through in plain loops (ops.h, SparseAttentionArgs), to see where the
// mass is and how far estimates are off.

#include <cstdint>
#include <span>
#include <vector>

#include "ops/ops.h"

namespace tinyserve::eval {

/// What may be read.
struct StudyReads {
  int32_t exact = 0, coded = 0, fine_divisor = 3, sinks = 1, recent = 1;
};

/// Mass of part of the tokens, of one query head: true, as the codes say without an offset, and the offset that the map
/// gives it: half the expected variance of the error. Masses are shares of the true mass of all positions.
struct PartMass {
  double truth = 0, codes = 0, offset = 0;
};

/// Of one query head.
struct CodeStudy {
  double exact = 0;       ///< share of the true mass that is read exactly, ends of the context included
  PartMass coarse, fine;  ///< what is known by coarse codes alone, and by fine ones (coded values, or estimated)
  double coded = 0;       ///< of the true mass, whose values are read as codes
  double log_mass = 0;    ///< log-sum-exp of all true logits
};

/// Studies row `row` of `args` in KV head `head`: one for each query head of the group. The memory is the host's; all
/// full pages are coded.
std::vector<CodeStudy> study_codes(const ops::AttentionArgs& args, const ops::BatchLayout& batch,
                                   const ops::SparseRow& row, int32_t head, const ops::SelectionMap& map,
                                   const StudyReads& reads);

/// The factor on offsets that brings masses of codes nearest to the true ones: the median over queries of what each
/// would have needed, weighed by what its offset moves of the answer. A median, for the queries that miss most had
/// tokens there which codes know nothing of, and no offset makes up for these.
class OffsetFit {
 public:
  void add(const PartMass& part);
  /// 1 when there was nothing to learn from.
  double factor() const;
  /// What is off with a factor, of the answer's mass, mean over queries.
  double error(double factor) const;

 private:
  struct Query {
    double needed, weight;
  };
  std::vector<Query> queries_;
};

}  // namespace tinyserve::eval
