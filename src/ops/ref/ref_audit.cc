#include "ops/ref/ref_audit.h"

#include <algorithm>

#include "ops/selection_audit.h"

namespace tinyserve::ops::ref {

SparseStats::Draw draw(std::span<const AuditItem> items, double number, const AuditShares& shares, int64_t& read) {
  read = 0;
  if (items.empty()) return {};
  const double n = static_cast<double>(items.size());
  double total = 0;
  for (const AuditItem& i : items) total += i.weight;
  size_t at = 0;
  if (total == 0) {  // nothing to go by
    at = static_cast<size_t>(number * n);
  } else if (number < kAuditEqual) {
    at = static_cast<size_t>(number / kAuditEqual * n);
  } else {
    double left = (number - kAuditEqual) / (1 - kAuditEqual) * total;
    for (size_t i = 0; i < items.size(); ++i) {
      if (items[i].weight == 0) continue;
      at = i;
      left -= items[i].weight;
      if (left < 0) break;
    }
  }
  const AuditItem& item = items[std::min(at, items.size() - 1)];
  const double probability = total == 0 ? 1 / n : (1 - kAuditEqual) * item.weight / total + kAuditEqual / n;
  double truth = 0, counted = 0;
  for (const int32_t t : item.tokens) truth += shares.truth(t), counted += item.counted ? shares.counted(t) : 0;
  read = static_cast<int64_t>(item.tokens.size());
  return {static_cast<float>(probability), static_cast<float>(truth), static_cast<float>(counted)};
}

}  // namespace tinyserve::ops::ref
