#include "kv/access_windows.h"

#include <algorithm>
#include <cmath>

namespace tinyserve {

void AccessWindows::close() {
  closed_[window_ % kWindows] = {sum_, difference_};
  ++window_;
  difference_ = sum_;  // as if no page were touched again
  sum_ = 0;
}

double AccessWindows::temporal() const {
  const auto closed = static_cast<int32_t>(std::min<uint32_t>(window_, kWindows));
  int64_t sum = 0;
  for (int32_t i = 0; i < closed; ++i) sum += closed_[i].sum;
  // The first window of all has nothing before it to differ from.
  const int32_t compared = closed - (window_ <= kWindows);
  if (compared <= 0 || sum <= 0) return 0;
  const double mean = static_cast<double>(sum) / closed;  // M * mean A
  double weights = 0, total = 0;
  for (int32_t age = 0; age < compared; ++age) {
    const double weight = std::exp2(-age / kHalfLifeWindows);
    weights += weight;
    total += weight * static_cast<double>(closed_[(window_ - 1 - age) % kWindows].difference);
  }
  return total / weights / mean;
}

}  // namespace tinyserve
