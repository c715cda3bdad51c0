#pragma once
// Step 5 of sparse attention: what was estimated, sampled against the truth.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "ops/ops.h"

namespace tinyserve::ops::ref {

/// What may be drawn: the unread tokens of a page, or one coded token.
struct AuditItem {
  std::vector<int32_t> tokens;
  double weight = 0;    ///< that it is drawn by
  bool counted = true;  ///< whether the answer counted it
};

/// Shares of the answer's sum of exponentials, of one token, means over the query heads.
struct AuditShares {
  std::function<double(int32_t token)> truth, counted;
};

/// Draws one of the items by `number` (selection_audit.h); sets `read` to the tokens whose keys that reads.
SparseStats::Draw draw(std::span<const AuditItem> items, double number, const AuditShares& shares, int64_t& read);

}  // namespace tinyserve::ops::ref
