#pragma once
// How a forward pass asks a policy: the model appends K and V and splits the rows, the policy does the rest.

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "ops/ops.h"
#include "select/audit.h"
#include "select/selection_request.h"

namespace tinyserve {

/// Which of a sequence's queries attend by selection, and what they may read. Rows of a position below `from` are dense. All of it goes
/// by position: a row that is computed again reads what it read.
struct SequenceSelection {
  int32_t from = std::numeric_limits<int32_t>::max();
  int32_t exact = 0, coded = 0;  ///< of SparseRow (ops.h)
  float exact_share = 0, coded_per_exact = 0, top_p = 0;  ///< of SelectionTerms
  std::span<const int32_t> budgets = {};  ///< when not empty: `exact` of the positions from `from` on
  Audit* audit = nullptr;                 ///< null: none
  int32_t counted = 0;                    ///< rows of lower positions were accounted and audited in an earlier step

  ops::SparseRow row(int32_t row, int32_t seq, int32_t position) const;
};

/// Of sequences whose tokens from position `first` on attend by selection, when `terms` let them.
SequenceSelection selection_of(const SelectionTerms& terms, int32_t first);

/// K and V of one layer that have just been appended.
struct AppendedRows {
  int32_t layer = 0;
  const float* qkv = nullptr;  ///< [rows, qkv_stride], as append_kv leaves it
  int64_t qkv_stride = 0;
  int64_t rows = 0;
  const ops::KvLayer* cache = nullptr;
  std::span<const int32_t> full_pages;  ///< whose last slot these rows filled
};

/// What one sequence's queries read in a step, summed over layers, KV heads and rows. The shares are of softmax mass, each also a
/// sum over `reads`.
struct SelectionAccount {
  int64_t reads = 0;       ///< (row, layer, KV head)
  double bytes = 0;        ///< codes, scales, means, K and V
  double dense_bytes = 0;  ///< what dense attention reads: K and V of all positions
  double exact_share = 0, coded_share = 0, estimated_share = 0;
  AuditSums audit;  ///< of answers that have ended

  void add(const SelectionAccount& o) {
    reads += o.reads, bytes += o.bytes, dense_bytes += o.dense_bytes;
    exact_share += o.exact_share, coded_share += o.coded_share, estimated_share += o.estimated_share;
    audit.add(o.audit);
  }
};

/// Of one query that read all positions, in all KV heads.
SelectionAccount dense_account(const ops::KvLayer& cache, int32_t tokens);

/// One policy at work for one model. Called from within a step, layers in their order.
class Selector {
 public:
  virtual ~Selector() = default;
  /// `selections`: [num_seqs], or none when nothing attends by selection; they outlive the step.
  virtual void begin_step(int32_t num_seqs, std::span<const SequenceSelection> selections = {}) {
    accounts_.assign(static_cast<size_t>(num_seqs), {});
    selections_ = selections;
  }
  /// After each layer's append, before its attention.
  virtual void appended(const AppendedRows& rows) = 0;
  /// Attention of `rows` of the batch, in place of Ops::attention for these: writes their rows of args.out. Called only for layers
  /// without a window or a soft cap.
  virtual void attend(int32_t layer, const ops::AttentionArgs& args, const ops::BatchLayout& batch,
                      std::span<const ops::SparseRow> rows) = 0;

  /// [num_seqs] of the last step.
  std::span<const SelectionAccount> accounts() const { return accounts_; }

 protected:
  /// Adds what a row read, unless it is computed again: each position counts once.
  void account(const ops::SparseRow& row, const SelectionAccount& read) {
    if (!again(row)) accounts_[static_cast<size_t>(row.seq)].add(read);
  }
  bool again(const ops::SparseRow& row) const {
    return !selections_.empty() && row.position < selections_[static_cast<size_t>(row.seq)].counted;
  }
  Audit* audit_of(const ops::SparseRow& row) const {
    return selections_.empty() || again(row) ? nullptr : selections_[static_cast<size_t>(row.seq)].audit;
  }

  std::vector<SelectionAccount> accounts_;
  std::span<const SequenceSelection> selections_;  // of this step
};

/// Bytes of K and V of `tokens` positions of one KV head.
inline double kv_bytes(const ops::KvLayer& cache, int64_t tokens) {
  return static_cast<double>(2 * tokens * cache.head_dim) * static_cast<double>(dtype_bytes(cache.dtype));
}

inline SelectionAccount dense_account(const ops::KvLayer& cache, int32_t tokens) {
  const double bytes = cache.kv_heads * kv_bytes(cache, tokens);
  return {.reads = cache.kv_heads,
          .bytes = bytes,
          .dense_bytes = bytes,
          .exact_share = static_cast<double>(cache.kv_heads)};
}

}  // namespace tinyserve
