// Graded precision (ops::Ops::sparse_attention): codes of all keys say what to read exactly, and stand for what is not read.

#include <algorithm>

#include "base/error.h"
#include "select/dense_check.h"
#include "select/dense_rows.h"
#include "select/policies/makers.h"

namespace tinyserve {
namespace {

class TinyserveSelector final : public Selector {
 public:
  explicit TinyserveSelector(const PolicyContext& c) : ops_(c.ops), config_(c.config), maps_(c.ops, *c.maps) {
    if (config_.audit_dense > 0 && !ops_.on_host()) throw InputError("--audit-dense reads K and V on the host; this backend's memory is elsewhere");
  }

  void appended(const AppendedRows& a) override {
    const ops::SelectionMap* map = maps_.layer(a.layer);
    if (map && !a.full_pages.empty()) ops_.encode_pages({.cache = *a.cache, .map = *map, .pages = a.full_pages});
  }

  void attend(int32_t layer, const ops::AttentionArgs& a, const ops::BatchLayout& batch, std::span<const ops::SparseRow> rows) override {
    const int32_t heads = a.cache.kv_heads;
    const ops::SelectionMap* map = maps_.layer(layer);
    if (!map) {  // found to need all it can read
      dense_.attend(ops_, a, batch, rows);
      for (const ops::SparseRow& row : rows) {
        account(row, dense_account(a.cache, row.position + 1));
        Audit* audit = audit_of(row);
        for (int32_t h = 0; audit && h < heads; ++h) {  // there is nothing to draw and nothing wrong
          audit->add(layer, h, {.exact_share = 1});
          if (checked(row.audit, layer)) audit->add(DenseCheck{});
        }
      }
      return;
    }
    const LayerReads& reads = maps_.reads(layer);
    stats_.resize(rows.size() * static_cast<size_t>(heads));
    rows_.assign(rows.begin(), rows.end());
    for (ops::SparseRow& row : rows_) {
      row.exact = reads.exact_of(row.exact), row.coded = reads.coded_of(row.coded);
      if (row.audit) row.audit = Audit::bits_of_layer(row.audit, layer);
    }
    const bool check = std::any_of(rows.begin(), rows.end(), [&](const ops::SparseRow& row) { return checked(row.audit, layer); });
    const int64_t stride = check ? int64_t{batch.page_table_stride} * a.cache.page_size : 0;
    reads_.resize(stats_.size() * static_cast<size_t>(stride));
    log_sums_.resize(check ? rows.size() * static_cast<size_t>(a.num_heads) : 0);
    ops_.sparse_attention({.q = a.q,
                           .q_stride = a.q_stride,
                           .num_heads = a.num_heads,
                           .scale = a.scale,
                           .cache = a.cache,
                           .map = *map,
                           .rows = rows_,
                           .sinks = config_.sinks,
                           .recent = config_.recent,
                           .fine_divisor = reads.fine_divisor_of(config_.fine_divisor),
                           .out = a.out,
                           .out_stride = a.out_stride,
                           .stats = stats_.data(),
                           .reads = check ? reads_.data() : nullptr,
                           .reads_stride = stride,
                           .log_sums = check ? log_sums_.data() : nullptr},
                          batch);
    for (size_t i = 0; i < stats_.size(); ++i) {
      const ops::SparseRow& row = rows_[i / static_cast<size_t>(heads)];
      const auto head = static_cast<int32_t>(i % static_cast<size_t>(heads));
      account(row, {.reads = 1,
                    .bytes = stats_[i].bytes,
                    .dense_bytes = kv_bytes(a.cache, row.position + 1),
                    .exact_share = stats_[i].exact_share,
                    .coded_share = stats_[i].coded_share,
                    .estimated_share = stats_[i].estimated_share});
      Audit* audit = audit_of(row);
      if (!audit) continue;
      audit->add(layer, head, stats_[i]);
      if (!checked(rows[i / static_cast<size_t>(heads)].audit, layer)) continue;
      const size_t heads_before = i / static_cast<size_t>(heads) * static_cast<size_t>(a.num_heads);
      audit->add(check_densely(a, batch, row, head, std::span(reads_).subspan(i * static_cast<size_t>(stride), static_cast<size_t>(stride)),
                               std::span(log_sums_).subspan(heads_before, static_cast<size_t>(a.num_heads))));
    }
  }

 private:
  /// By random bits that the draw does not use; all heads of a row and layer together.
  bool checked(uint64_t audit, int32_t layer) const {
    if (!audit || config_.audit_dense <= 0) return false;
    const uint64_t bits = Audit::bits_of_layer(Audit::bits_of_layer(audit, layer), -1);
    return static_cast<double>(bits >> 11) * 0x1p-53 < double{config_.audit_dense};
  }

  ops::Ops& ops_;
  const SelectionConfig config_;
  PlacedMaps maps_;
  DenseRows dense_;
  std::vector<ops::SparseRow> rows_;  // with what this layer may read of them
  std::vector<ops::SparseStats> stats_;
  std::vector<ops::SparseRead> reads_;  // [rows, kv_heads, positions], of steps that are checked
  std::vector<float> log_sums_;         // [rows, num_heads]
};

}  // namespace

std::unique_ptr<Selector> make_tinyserve(const PolicyContext& context) { return std::make_unique<TinyserveSelector>(context); }

}  // namespace tinyserve
