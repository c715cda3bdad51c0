#pragma once
#include <cstdint>
#include <vector>

#include "engine/scheduler.h"
#include "model/model.h"

namespace tinyserve {

/// A committed plan, flattened for the model. All arrays are sized once. The page table keeps its rows from step to
/// step: a sequence that stands where it stood writes only the pages it got since.
class Batch {
 public:
  Batch(int32_t page_size, int32_t max_tokens, int32_t max_seqs, int32_t max_logit_rows, int32_t max_pages);

  /// Valid until the next call. Logits come in the order of items: the rows that score the prompt, then the one that
  /// picks a token.
  /// An answer's tokens attend as its request's terms say, prompts densely.
  Step build(const StepPlan& plan);

 private:
  struct Row {
    uint64_t uid = 0, version = 0;
    int32_t num_pages = 0;
  };
  static SequenceSelection selection_for(const StepItem& item);
  void fill_table_row(int32_t row, const Sequence& sequence);

  int32_t page_size_, max_pages_;
  std::vector<int32_t> token_ids_, positions_, cu_query_lens_, kv_lens_, page_table_, logit_rows_;
  std::vector<int64_t> slots_;
  std::vector<SequenceSelection> selections_;
  std::vector<Row> rows_;
};

}  // namespace tinyserve
