#pragma once
// Which rows of a step are still alive. All of them, until the last layer has appended its K and V: from there on only
// the rows whose logits are wanted have any use, and a prefill wants none or one of hundreds. Dropping the others saves
// the last layer's attention, output projection and MLP.

#include <cstdint>
#include <span>
#include <vector>

#include "model/model.h"

namespace tinyserve {

class StepRows {
 public:
  void reserve(int64_t max_tokens, int64_t max_seqs);

  /// A new step; all its rows are alive. The step's arrays must outlive their use here.
  void begin(const Step& step);
  int64_t count() const { return count_; }
  /// The rows whose logits are wanted, ascending.
  std::span<const int32_t> wanted() const { return wanted_; }
  bool all_wanted() const { return static_cast<int32_t>(wanted_.size()) == layout_.num_tokens; }
  /// From here on only the wanted rows are alive.
  void keep_wanted() { count_ = static_cast<int64_t>(wanted_.size()); }

  /// Whether attention can be computed for the wanted rows alone: they must be the last ones of their sequences, since
  /// a BatchLayout's queries end where the cache ends. (Prompt log-probabilities want all rows, which is a case of it.)
  bool wanted_rows_end_sequences() const { return suffixes_; }
  /// The step with the wanted rows alone, in host memory; only when they end their sequences. Sequences without any
  /// stay in it with no tokens.
  ops::BatchLayout wanted_layout();

 private:
  void find_suffixes();

  ops::BatchLayout layout_;  // the whole step, in host memory
  std::span<const int32_t> wanted_;
  int64_t count_ = 0;
  bool suffixes_ = true;
  std::vector<int32_t> wanted_per_seq_;  // [num_seqs]
  std::vector<int32_t> cu_query_lens_;   // of the wanted rows, as are the following
  std::vector<int32_t> positions_;
  std::vector<int64_t> slots_;
};

}  // namespace tinyserve
