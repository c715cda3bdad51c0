#include "select/head_map.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "select/symmetric_eigen.h"

namespace tinyserve {
namespace {

TEST(SymmetricEigen, TakesAMatrixApart) {
  for (const int32_t n : {1, 2, 16, 80}) {
    std::mt19937 random(n);
    std::normal_distribution<double> normal;
    std::vector<double> a(n * n);
    for (int32_t i = 0; i < n; ++i)
      for (int32_t j = 0; j <= i; ++j) a[i * n + j] = a[j * n + i] = normal(random) * std::exp(-0.1 * (i + j));
    const SymmetricEigen e = symmetric_eigen(a, n);
    for (int32_t i = 0; i < n; ++i) {
      EXPECT_GE(e.values[i > 0 ? i - 1 : 0], e.values[i]);
      for (int32_t j = 0; j < n; ++j) {
        double back = 0, dot = 0;
        for (int32_t k = 0; k < n; ++k) {
          back += e.values[k] * e.vectors[k * n + i] * e.vectors[k * n + j];
          dot += e.vectors[i * n + k] * e.vectors[j * n + k];
        }
        EXPECT_NEAR(back, a[i * n + j], 1e-10);
        EXPECT_NEAR(dot, i == j, 1e-10);
      }
    }
  }
}

TEST(ShareBits, FillsTheLayout) {
  for (const int32_t d : {16, 32, 48, 64, 80, 128, 256})
    for (const double decay : {0.0, 0.01, 0.1, 1.0}) {
      std::vector<double> variance;
      for (int32_t a = 0; a < d; ++a) variance.push_back(std::exp(-decay * a));
      const ops::HeadBits b = share_bits(variance);
      EXPECT_LE(2 * b.coarse4 + b.coarse2, ops::coarse_units(d));
      EXPECT_LE(2 * b.fine4 + b.fine2, d / 4);
      EXPECT_LE(b.fine4 + b.fine2, d / 4);
      EXPECT_GE(b.fine4, b.coarse4);
      EXPECT_GE(b.fine4 + b.fine2, b.coarse4 + b.coarse2);
    }
  EXPECT_EQ(share_bits(std::vector<double>(64, 1.0)).coarse4, 0);  // equal axes: 2 bits for as many as there are
  std::vector<double> steep(64, 1e-6);
  std::fill_n(steep.begin(), 8, 1.0);
  EXPECT_EQ(share_bits(steep).coarse4, 2);  // 8 axes matter: 4 bits for these
}

// Keys of a known distribution: the map is an inverse pair, its axes are uncorrelated, and the error of q.k is what it says.
TEST(HeadMap, EstimatesLogitsAsWellAsItSays) {
  constexpr int32_t d = 32, rows = 3000;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> mix(d * d), qkv(rows * 3 * d);
  for (float& x : mix) x = normal(random) / 4;
  for (int32_t r = 0; r < rows; ++r) {
    float* row = qkv.data() + int64_t{r} * 3 * d;
    for (int32_t i = 0; i < d; ++i) row[i] = normal(random) * (i < 8 ? 3.0f : 0.5f);  // q
    for (int32_t a = 0; a < d; ++a) {
      const float z = normal(random) * 4 * std::exp(-0.15f * static_cast<float>(a));
      for (int32_t i = 0; i < d; ++i) row[d + i] += z * mix[a * d + i];
    }
    for (int32_t i = 0; i < d; ++i) row[d + i] += static_cast<float>(i);
  }
  KeyStatistics statistics(1, 1, 1, d);
  for (int32_t r = 0; r < rows; r += 500) statistics.add(0, qkv.data() + int64_t{r} * 3 * d, 3 * d, 500);
  const HeadMap map = fit_head_map(statistics.head(0, 0), d);

  double coarse = 0, fine = 0, expected_coarse = 0, expected_fine = 0, variance = 0;
  for (int32_t r = 0; r + 7 < rows; r += 3) {
    const float *k = qkv.data() + int64_t{r} * 3 * d + d, *q = qkv.data() + int64_t{r + 7} * 3 * d;
    double logit = 0, low = 0, high = 0, whole = 0;
    for (int32_t i = 0; i < d; ++i) logit += q[i] * (k[i] - map.mean[i]);
    for (int32_t a = 0; a < d; ++a) {
      double u = 0, c = 0;
      for (int32_t i = 0; i < d; ++i) u += map.to_axes[a * d + i] * (k[i] - map.mean[i]), c += map.from_axes[a * d + i] * q[i];
      const int32_t code = ops::code_of(static_cast<float>(u));
      const auto level = [&](int32_t bits) { return bits == 4 ? ops::kLevels4[code] : bits == 2 ? ops::kLevels2[code >> 2] : 0; };
      whole += c * u;
      low += c * ops::kLevelStep * level(map.bits.coarse(a / 4));
      high += c * ops::kLevelStep * level(map.bits.fine(a / 4));
      expected_coarse += c * c * map.coarse_error[a];
      expected_fine += c * c * map.fine_error[a];
    }
    EXPECT_NEAR(whole, logit, 2e-2 * (1 + std::abs(logit)));
    coarse += (low - logit) * (low - logit), fine += (high - logit) * (high - logit), variance += logit * logit;
  }
  EXPECT_NEAR(coarse / expected_coarse, 1, 0.25);  // errors were measured on a sample of keys, and axes' errors are not quite independent
  EXPECT_NEAR(fine / expected_fine, 1, 0.25);
  EXPECT_LT(coarse, 0.25 * variance);
  EXPECT_LT(fine, 0.05 * variance);
}

}  // namespace
}  // namespace tinyserve
