#include "select/statistics_collector.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace tinyserve {
namespace {

constexpr int32_t kDim = 16, kRotary = 8, kRows = 4096, kFirst = 100;

/// The key (or query) that turns into `base` at position 0, at a position.
std::vector<float> at(const std::vector<float>& base, std::span<const double> frequencies, int32_t position) {
  std::vector<float> to = base;
  const size_t half = frequencies.size();
  for (size_t i = 0; i < half; ++i) {
    const double c = std::cos(position * frequencies[i]), s = std::sin(position * frequencies[i]);
    to[i] = static_cast<float>(c * base[i] - s * base[i + half]);
    to[i + half] = static_cast<float>(c * base[i + half] + s * base[i]);
  }
  return to;
}

class StatisticsCollectorTest : public ::testing::Test {
 protected:
  StatisticsCollectorTest() {
    for (int32_t i = 0; i < kDim; ++i) key.push_back(static_cast<float>(1 + i)), query.push_back(static_cast<float>(2 - i));
  }
  HeadStatistics collect(const Turning& turning) {
    std::vector<float> rows;
    for (int32_t r = 0; r < kRows; ++r)
      for (const auto& base : {query, key}) {
        const std::vector<float> row = at(base, frequencies, kFirst + r);
        rows.insert(rows.end(), row.begin(), row.end());
      }
    KeyStatistics statistics(1, 1, 1, kDim);
    StatisticsCollector collector(statistics, 1, 1, kDim, turning);
    for (int32_t begin = 0; begin < kRows; begin += kRows / 4) {
      collector.next_rows(kFirst + begin, begin);
      collector.appended({.layer = 0, .qkv = rows.data() + int64_t{begin} * 2 * kDim, .qkv_stride = 2 * kDim, .rows = kRows / 4});
    }
    return statistics.head(0, 0);
  }
  static std::vector<double> mean(const HeadStatistics& s) {
    std::vector<double> m(s.key_sum);
    for (size_t i = 0; i < m.size(); ++i) m[i] = m[i] / static_cast<double>(s.keys) + s.shift[i];
    return m;
  }
  const std::vector<double> frequencies{1, 0.1, 0.001, 0.00002};
  std::vector<float> key, query;
};

TEST_F(StatisticsCollectorTest, AShortTextStandsForAllPositions) {
  constexpr int32_t kRange = 32768;
  const std::vector<double> found = mean(collect({.inverse_frequencies = frequencies, .range = kRange}));
  std::vector<double> wanted(kDim);
  for (int32_t i = 0; i < kRange; ++i) {  // places are the squares of even shares
    const double even = (i + 0.5) / kRange;
    const std::vector<float> k = at(key, frequencies, static_cast<int32_t>(even * even * kRange));
    for (int32_t c = 0; c < kDim; ++c) wanted[static_cast<size_t>(c)] += k[static_cast<size_t>(c)] / kRange;
  }
  for (size_t i = 0; i < kDim; ++i) EXPECT_NEAR(found[i], wanted[i], 0.1) << i;
  // As they stand, the slow channels are elsewhere.
  const std::vector<double> unturned = mean(collect({}));
  EXPECT_GT(std::abs(unturned[2] - wanted[2]), 1);
  for (size_t i = kRotary; i < kDim; ++i) EXPECT_NEAR(unturned[i], found[i], 1e-3) << "what does not turn";
}

TEST_F(StatisticsCollectorTest, QueriesTurnWithKeys) {
  const HeadStatistics s = collect({.inverse_frequencies = frequencies, .range = 32768});
  double size = 0, wanted = 0;
  for (size_t i = 0; i < kDim; ++i) size += s.query_square[i * kDim + i] / static_cast<double>(s.queries), wanted += query[i] * query[i];
  EXPECT_NEAR(size, wanted, 1e-2) << "turning keeps lengths";
}

}  // namespace
}  // namespace tinyserve
