#include "engine/batch.h"

#include <algorithm>

#include "base/check.h"

namespace tinyserve {

Batch::Batch(int32_t page_size, int32_t max_tokens, int32_t max_seqs, int32_t max_logit_rows, int32_t max_pages)
    : page_size_(page_size),
      max_pages_(max_pages),
      token_ids_(max_tokens),
      positions_(max_tokens),
      cu_query_lens_(max_seqs + 1),
      kv_lens_(max_seqs),
      page_table_(size_t(max_seqs) * max_pages, -1),
      slots_(max_tokens),
      selections_(max_seqs),
      rows_(max_seqs) {
  logit_rows_.reserve(max_logit_rows);
}

Step Batch::build(const StepPlan& plan) {
  logit_rows_.clear();
  int32_t num_tokens = 0, num_seqs = 0;
  cu_query_lens_[0] = 0;
  for (const StepItem& item : plan.items) {
    const Sequence& sequence = *item.sequence;
    fill_table_row(num_seqs, sequence);
    const int32_t end = item.start + item.num_tokens;
    const int32_t row_of_zero = num_tokens - item.start;  // row of the token at position 0, were it in the batch
    std::copy_n(sequence.tokens.begin() + item.start, item.num_tokens, token_ids_.begin() + num_tokens);
    for (int32_t position = item.start; position < end; ++position, ++num_tokens) {
      positions_[num_tokens] = position;
      slots_[num_tokens] = int64_t{sequence.pages[position / page_size_]} * page_size_ + position % page_size_;
    }
    const int32_t scored_from = std::max(item.start, sequence.request->first_prompt_logit());
    for (int32_t i = 0; i < item.num_prompt_logits; ++i) logit_rows_.push_back(row_of_zero + scored_from + i);
    if (item.samples) logit_rows_.push_back(num_tokens - 1);
    selections_[num_seqs] = selection_for(item);
    kv_lens_[num_seqs] = end;
    cu_query_lens_[++num_seqs] = num_tokens;
  }
  Step step;
  step.token_ids = std::span(token_ids_).first(num_tokens);
  step.logit_rows = logit_rows_;
  step.selections = std::span(selections_).first(num_seqs);
  step.layout = {.num_seqs = num_seqs,
                 .num_tokens = num_tokens,
                 .cu_query_lens = cu_query_lens_.data(),
                 .kv_lens = kv_lens_.data(),
                 .page_table = page_table_.data(),
                 .page_table_stride = max_pages_,
                 .positions = positions_.data(),
                 .slots = slots_.data()};
  return step;
}

/// By position, not by step: a token that is computed again after a preemption attends as it did.
SequenceSelection Batch::selection_for(const StepItem& item) {
  Sequence& sequence = *item.sequence;
  const SelectionTerms& terms = sequence.request->terms;
  SequenceSelection s = selection_of(terms, sequence.request->num_prompt);
  if (terms.dense) return s;
  s.counted = sequence.num_accounted;
  if (terms.audit) s.audit = &sequence.audit;
  if (sequence.budget.active()) {
    sequence.budget.extend(s.from, item.start + item.num_tokens);
    s.budgets = sequence.budget.budgets();
  }
  return s;
}

void Batch::fill_table_row(int32_t row, const Sequence& sequence) {
  Row& known = rows_[row];
  const std::span<const int32_t> pages = sequence.pages.pages();
  TS_CHECK(static_cast<int32_t>(pages.size()) <= max_pages_);
  if (known.uid != sequence.uid || known.version != sequence.pages.version())
    known = {sequence.uid, sequence.pages.version(), 0};
  std::copy(pages.begin() + known.num_pages, pages.end(),
            page_table_.begin() + size_t(row) * max_pages_ + known.num_pages);
  known.num_pages = static_cast<int32_t>(pages.size());
}

}  // namespace tinyserve
