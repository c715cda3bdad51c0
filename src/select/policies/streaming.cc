// StreamingLLM (arXiv 2309.17453) over pages: the first pages and the newest tokens, the rest as if it had never been. Keys keep the
// rotation of their true positions.

#include <algorithm>

#include "select/policies/makers.h"

namespace tinyserve {
namespace {

class StreamingSelector final : public Selector {
 public:
  explicit StreamingSelector(const PolicyContext& c) : ops_(c.ops), config_(c.config) {}

  void appended(const AppendedRows&) override {}

  // Dense attention over a page table from which the middle is missing: each run of consecutive rows is a batch of its own.
  void attend(int32_t, const ops::AttentionArgs& a, const ops::BatchLayout& batch, std::span<const ops::SparseRow> rows) override {
    for (size_t begin = 0; begin < rows.size();) {
      size_t end = begin + 1;
      while (end < rows.size() && rows[end].row == rows[end - 1].row + 1) ++end;
      attend_run(a, batch, rows.subspan(begin, end - begin));
      begin = end;
    }
  }

 private:
  void attend_run(ops::AttentionArgs a, const ops::BatchLayout& batch, std::span<const ops::SparseRow> rows) {
    const int32_t page = a.cache.page_size;
    stride_ = 0;
    for (const ops::SparseRow& r : rows) stride_ = std::max(stride_, config_.sinks + (r.exact + page - 1) / page + 1);
    table_.assign(rows.size() * static_cast<size_t>(stride_), 0);
    cu_.assign(1, 0), lens_.clear(), positions_.clear();
    for (size_t i = 0; i < rows.size(); ++i) {
      const ops::SparseRow& r = rows[i];
      const int32_t* from = batch.page_table + int64_t{r.seq} * batch.page_table_stride;
      const int32_t newest = r.position / page, oldest = std::max(config_.sinks, (r.position + 1 - r.exact) / page);
      int32_t* to = table_.data() + i * static_cast<size_t>(stride_);
      const int32_t sinks = std::min(config_.sinks, newest);
      std::copy_n(from, sinks, to);
      std::copy(from + std::max(oldest, sinks), from + newest + 1, to + sinks);
      const int32_t pages = sinks + newest - std::max(oldest, sinks) + 1;
      lens_.push_back((pages - 1) * page + r.position % page + 1);
      positions_.push_back(lens_.back() - 1);
      cu_.push_back(static_cast<int32_t>(i) + 1);
      account(r, {.reads = a.cache.kv_heads,
                  .bytes = a.cache.kv_heads * kv_bytes(a.cache, lens_.back()),
                  .dense_bytes = a.cache.kv_heads * kv_bytes(a.cache, r.position + 1),
                  .exact_share = static_cast<double>(a.cache.kv_heads)});
    }
    a.q += rows.front().row * a.q_stride;
    a.out += rows.front().row * a.out_stride;
    ops_.attention(a, ops_.begin_step({.num_seqs = static_cast<int32_t>(rows.size()),
                                       .num_tokens = static_cast<int32_t>(rows.size()),
                                       .cu_query_lens = cu_.data(),
                                       .kv_lens = lens_.data(),
                                       .page_table = table_.data(),
                                       .page_table_stride = stride_,
                                       .positions = positions_.data(),
                                       .slots = batch.slots + rows.front().row}));
  }

  ops::Ops& ops_;
  const SelectionConfig config_;
  int32_t stride_ = 0;
  std::vector<int32_t> table_, cu_, lens_, positions_;
};

}  // namespace

std::unique_ptr<Selector> make_streaming(const PolicyContext& context) { return std::make_unique<StreamingSelector>(context); }

}  // namespace tinyserve
