#pragma once
// Which rows of a step attend densely and which by selection. Dense rows stay what they were: batches of consecutive rows that
// Ops::attention takes as they are.

#include <span>
#include <vector>

#include "ops/ops.h"
#include "select/selector.h"

namespace tinyserve {

class RowSplit {
 public:
  /// Consecutive dense rows, beginning with row `first_row` of the step.
  struct Run {
    ops::BatchLayout layout;
    int32_t first_row = 0;
  };

  void reserve(int64_t max_tokens, int64_t max_seqs);
  /// Of a layout in host memory that outlives the use of runs(). `selections`: one a sequence.
  void split(const ops::BatchLayout& layout, std::span<const SequenceSelection> selections);
  void clear();

  bool any_sparse() const { return !rows_.empty(); }
  std::span<const Run> runs() const { return runs_; }
  std::span<const ops::SparseRow> rows() const { return rows_; }

 private:
  void begin_run(const ops::BatchLayout& layout, int32_t seq);
  void end_run();

  bool open_ = false;
  std::vector<Run> runs_;
  std::vector<ops::SparseRow> rows_;
  std::vector<int32_t> cu_query_lens_, kv_lens_;  // of all runs, one after the other; never reallocated
};

}  // namespace tinyserve
