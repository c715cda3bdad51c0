// Graded precision (ops::Ops::sparse_attention): codes of all keys say what to read exactly, and stand for what is not read.

#include "select/policies/makers.h"

namespace tinyserve {
namespace {

class TinyserveSelector final : public Selector {
 public:
  explicit TinyserveSelector(const PolicyContext& c) : ops_(c.ops), config_(c.config), maps_(c.ops, *c.maps) {}

  void appended(const AppendedRows& a) override {
    const ops::SelectionMap* map = maps_.layer(a.layer);
    if (map && !a.full_pages.empty()) ops_.encode_pages({.cache = *a.cache, .map = *map, .pages = a.full_pages});
  }

  void attend(int32_t layer, const ops::AttentionArgs& a, const ops::BatchLayout& batch, std::span<const ops::SparseRow> rows) override {
    const int32_t heads = a.cache.kv_heads;
    stats_.resize(rows.size() * static_cast<size_t>(heads));
    ops_.sparse_attention({.q = a.q,
                           .q_stride = a.q_stride,
                           .num_heads = a.num_heads,
                           .scale = a.scale,
                           .cache = a.cache,
                           .map = *maps_.layer(layer),
                           .rows = rows,
                           .sinks = config_.sinks,
                           .recent = config_.recent,
                           .fine_divisor = config_.fine_divisor,
                           .out = a.out,
                           .out_stride = a.out_stride,
                           .stats = stats_.data()},
                          batch);
    for (size_t i = 0; i < stats_.size(); ++i) {
      const ops::SparseRow& row = rows[i / static_cast<size_t>(heads)];
      accounts_[static_cast<size_t>(row.seq)].add({.reads = 1,
                                                   .bytes = stats_[i].bytes,
                                                   .dense_bytes = kv_bytes(a.cache, row.position + 1),
                                                   .exact_share = stats_[i].exact_share,
                                                   .coded_share = stats_[i].coded_share,
                                                   .estimated_share = stats_[i].estimated_share});
    }
  }

 private:
  ops::Ops& ops_;
  const SelectionConfig config_;
  PlacedMaps maps_;
  std::vector<ops::SparseStats> stats_;
};

}  // namespace

std::unique_ptr<Selector> make_tinyserve(const PolicyContext& context) { return std::make_unique<TinyserveSelector>(context); }

}  // namespace tinyserve
