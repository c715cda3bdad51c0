#pragma once
#include <cstdint>
#include <vector>

namespace tinyserve::cli {

/// What a set of samples looks like. All zero when there are none.
struct Summary {
  int64_t count = 0;
  double mean = 0, min = 0, max = 0;
  double p50 = 0, p90 = 0, p99 = 0;
};

/// The smallest sample that at least `percent` of all samples do not exceed (nearest rank). `sorted` is not empty.
double percentile(const std::vector<double>& sorted, double percent);
Summary summarize(std::vector<double> samples);

}  // namespace tinyserve::cli
