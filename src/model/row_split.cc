#include "model/row_split.h"

#include <algorithm>

namespace tinyserve {

void RowSplit::reserve(int64_t max_tokens, int64_t max_seqs) {
  const auto seqs = static_cast<size_t>(max_seqs);
  rows_.reserve(static_cast<size_t>(max_tokens));
  runs_.reserve(seqs + 1);
  kv_lens_.reserve(seqs);
  cu_query_lens_.reserve(2 * seqs + 1);
}

void RowSplit::clear() {
  runs_.clear(), rows_.clear(), kv_lens_.clear(), cu_query_lens_.clear();
  open_ = false;
}

void RowSplit::split(const ops::BatchLayout& layout, std::span<const SequenceSelection> selections) {
  clear();
  for (int32_t s = 0; s < layout.num_seqs; ++s) {
    const int32_t begin = layout.cu_query_lens[s], end = layout.cu_query_lens[s + 1];
    if (begin == end) {  // nothing to do for it; a run goes on over it
      if (open_) kv_lens_.push_back(layout.kv_lens[s]), cu_query_lens_.push_back(cu_query_lens_.back());
      continue;
    }
    const int64_t before = int64_t{selections[s].from} - layout.positions[begin];
    const auto dense = static_cast<int32_t>(std::clamp<int64_t>(before, 0, end - begin));
    if (dense > 0) {
      if (!open_) begin_run(layout, s);
      kv_lens_.push_back(layout.kv_lens[s] - (end - begin - dense));
      cu_query_lens_.push_back(cu_query_lens_.back() + dense);
    }
    if (dense == end - begin) continue;
    end_run();
    for (int32_t t = begin + dense; t < end; ++t) rows_.push_back(selections[s].row(t, s, layout.positions[t]));
  }
  end_run();
}

void RowSplit::begin_run(const ops::BatchLayout& layout, int32_t seq) {
  open_ = true;
  const int32_t row = layout.cu_query_lens[seq];
  Run run{.layout = layout, .first_row = row};
  run.layout.page_table = layout.page_table + int64_t{seq} * layout.page_table_stride;
  run.layout.positions = layout.positions + row;
  run.layout.slots = layout.slots + row;
  cu_query_lens_.push_back(0);
  run.layout.cu_query_lens = cu_query_lens_.data() + (cu_query_lens_.size() - 1);
  run.layout.kv_lens = kv_lens_.data() + kv_lens_.size();
  runs_.push_back(run);
}

void RowSplit::end_run() {
  if (!open_) return;
  open_ = false;
  ops::BatchLayout& layout = runs_.back().layout;
  layout.num_seqs = static_cast<int32_t>(kv_lens_.data() + kv_lens_.size() - layout.kv_lens);
  layout.num_tokens = cu_query_lens_.back();
}

}  // namespace tinyserve
