#pragma once
#include <span>

#include "ops/ops.h"

namespace tinyserve {

/// What one sparse read is worth by the attention it stands for. Masses are relative to the answer's own sum of
/// exponentials, means over the query heads of the group, as an audit's draws (SparseStats::Draw).
struct DenseCheck {
  double true_estimated = 0, true_coded = 0;  ///< true mass of what was estimated, and of what was read in codes
  double output_error = 0;                    ///< |out - dense| / |dense| over all query heads of the group
};

/// Recomputes one row and KV head densely, in plain loops over memory that must be the host's. `reads` [position + 1]
/// and `log_sums` [num_heads] are what sparse_attention said of the row.
DenseCheck check_densely(const ops::AttentionArgs& args, const ops::BatchLayout& batch, const ops::SparseRow& row,
                         int32_t head, std::span<const ops::SparseRead> reads, std::span<const float> log_sums);

}  // namespace tinyserve
