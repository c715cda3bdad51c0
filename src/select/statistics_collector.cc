#include "select/statistics_collector.h"

#include <algorithm>
#include <cmath>

namespace tinyserve {

void StatisticsCollector::appended(const AppendedRows& a) {
  if (turning_.inverse_frequencies.empty()) return to_.add(a.layer, a.qkv, a.qkv_stride, a.rows);
  const int64_t width = int64_t{heads_} * head_dim_;
  turned_.resize(static_cast<size_t>(a.rows * width));
  for (int64_t r = 0; r < a.rows; ++r) {
    const double golden = 0.6180339887498949 * static_cast<double>(row_ + r);  // spreads any number of rows evenly
    const double even = golden - std::floor(golden);  // squared: half of the rows in the first quarter
    const auto place = static_cast<int32_t>(even * even * turning_.range);
    turn(a.qkv + r * a.qkv_stride, place - (position_ + static_cast<int32_t>(r)), turned_.data() + r * width);
  }
  to_.add(a.layer, turned_.data(), width, a.rows);
}

/// Queries and keys of one row, turned by so many positions. Channel i pairs with i + rotary_dim / 2 (AppendArgs).
void StatisticsCollector::turn(const float* from, int32_t by, float* to) {
  const auto half = static_cast<int32_t>(turning_.inverse_frequencies.size());
  cos_.resize(static_cast<size_t>(half)), sin_.resize(static_cast<size_t>(half));
  for (int32_t i = 0; i < half; ++i) {
    const double angle = by * turning_.inverse_frequencies[static_cast<size_t>(i)];
    cos_[static_cast<size_t>(i)] = static_cast<float>(std::cos(angle));
    sin_[static_cast<size_t>(i)] = static_cast<float>(std::sin(angle));
  }
  for (int32_t h = 0; h < heads_; ++h, from += head_dim_, to += head_dim_) {
    for (int32_t i = 0; i < half; ++i) {
      const float c = cos_[static_cast<size_t>(i)], s = sin_[static_cast<size_t>(i)], x = from[i], y = from[i + half];
      to[i] = c * x - s * y;
      to[i + half] = c * y + s * x;
    }
    std::copy(from + 2 * half, from + head_dim_, to + 2 * half);
  }
}

}  // namespace tinyserve
