#include "select/selector.h"

#include <algorithm>
#include <cmath>

namespace tinyserve {

ops::SparseRow SequenceSelection::row(int32_t row, int32_t seq, int32_t position) const {
  int32_t read = exact, further = coded;
  if (!budgets.empty()) {
    read = budgets[std::min(static_cast<size_t>(position - from), budgets.size() - 1)];
  } else if (exact_share > 0) {
    read = std::max(1, static_cast<int32_t>(std::ceil(double{exact_share} * (position + 1) - 1e-3)));
  }
  if (coded_per_exact > 0)
    further = static_cast<int32_t>(std::min(std::round(double{coded_per_exact} * read), double{kMostBudget}));
  return {.row = row,
          .seq = seq,
          .position = position,
          .exact = read,
          .coded = further,
          .top_p = top_p,
          .audit = audit && position >= counted ? audit->bits(position) : 0};
}

SequenceSelection selection_of(const SelectionTerms& t, int32_t first) {
  SequenceSelection s;
  if (t.dense) return s;
  s.from = std::max(first, t.from - 1);  // whose query sees `from` tokens
  s.exact = t.exact, s.coded = t.coded;
  s.exact_share = t.exact_share, s.coded_per_exact = t.coded_per_exact, s.top_p = t.top_p;
  return s;
}

}  // namespace tinyserve
