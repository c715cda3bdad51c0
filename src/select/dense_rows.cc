#include "select/dense_rows.h"

#include <algorithm>

namespace tinyserve {

void DenseRows::attend(ops::Ops& ops, const ops::AttentionArgs& args, const ops::BatchLayout& batch,
                       std::span<const ops::SparseRow> rows) {
  for (size_t begin = 0; begin < rows.size();) {  // a batch has consecutive rows
    size_t end = begin + 1;
    while (end < rows.size() && rows[end].row == rows[end - 1].row + 1) ++end;
    attend_run(ops, args, batch, rows.subspan(begin, end - begin));
    begin = end;
  }
}

// Each row is a sequence of its own: of one sequence's rows not all need be there.
void DenseRows::attend_run(ops::Ops& ops, ops::AttentionArgs args, const ops::BatchLayout& batch,
                           std::span<const ops::SparseRow> rows) {
  table_.clear(), lens_.clear(), positions_.clear();
  cu_.assign(1, 0);
  for (const ops::SparseRow& row : rows) {
    const int32_t* table = batch.page_table + int64_t{row.seq} * batch.page_table_stride;
    table_.insert(table_.end(), table, table + batch.page_table_stride);
    lens_.push_back(row.position + 1);
    positions_.push_back(row.position);
    cu_.push_back(static_cast<int32_t>(cu_.size()));
  }
  args.q += rows.front().row * args.q_stride;
  args.out += rows.front().row * args.out_stride;
  ops.attention(args, ops.begin_step({.num_seqs = static_cast<int32_t>(rows.size()),
                                      .num_tokens = static_cast<int32_t>(rows.size()),
                                      .cu_query_lens = cu_.data(),
                                      .kv_lens = lens_.data(),
                                      .page_table = table_.data(),
                                      .page_table_stride = batch.page_table_stride,
                                      .positions = positions_.data(),
                                      .slots = batch.slots + rows.front().row}));
}

}  // namespace tinyserve
