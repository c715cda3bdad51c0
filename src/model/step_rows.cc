#include "model/step_rows.h"

#include "base/check.h"

namespace tinyserve {

void StepRows::reserve(int64_t max_tokens, int64_t max_seqs) {
  wanted_per_seq_.reserve(static_cast<size_t>(max_seqs));
  cu_query_lens_.reserve(static_cast<size_t>(max_seqs) + 1);
  positions_.reserve(static_cast<size_t>(max_tokens));
  slots_.reserve(static_cast<size_t>(max_tokens));
}

void StepRows::begin(const Step& step) {
  layout_ = step.layout;
  wanted_ = step.logit_rows;
  count_ = layout_.num_tokens;
  find_suffixes();
}

void StepRows::find_suffixes() {
  suffixes_ = true;
  wanted_per_seq_.clear();
  size_t next = 0;
  for (int32_t s = 0; s < layout_.num_seqs; ++s) {
    const size_t begin = next;
    const int32_t first_row = layout_.cu_query_lens[s], end_row = layout_.cu_query_lens[s + 1];
    while (next < wanted_.size() && wanted_[next] < end_row) {
      TS_CHECK(wanted_[next] >= (next == begin ? first_row : wanted_[next - 1] + 1), "logit_rows must ascend");
      ++next;
    }
    const auto here = static_cast<int32_t>(next - begin);
    // Ascending rows below end_row: they are the last ones exactly when the first is end_row - here.
    if (here > 0 && wanted_[begin] != end_row - here) suffixes_ = false;
    wanted_per_seq_.push_back(here);
  }
  TS_CHECK(next == wanted_.size(), "logit_rows must be rows of the step");
}

ops::BatchLayout StepRows::wanted_layout() {
  TS_CHECK(suffixes_, "only rows that end their sequences make a layout");
  cu_query_lens_.assign(1, 0);
  for (const int32_t n : wanted_per_seq_) cu_query_lens_.push_back(cu_query_lens_.back() + n);
  positions_.clear();
  slots_.clear();
  for (const int32_t row : wanted_) {
    positions_.push_back(layout_.positions[row]);
    slots_.push_back(layout_.slots[row]);
  }
  ops::BatchLayout out = layout_;
  out.num_tokens = static_cast<int32_t>(wanted_.size());
  out.cu_query_lens = cu_query_lens_.data();
  out.positions = positions_.data();
  out.slots = slots_.data();
  return out;
}

}  // namespace tinyserve
