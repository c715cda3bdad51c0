#include "select/head_map.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "select/symmetric_eigen.h"

namespace tinyserve {
namespace {

using Matrix = std::vector<double>;  // [n, n]

Matrix product(const Matrix& a, const Matrix& b, int32_t n) {
  Matrix c(a.size());
  for (int32_t i = 0; i < n; ++i)
    for (int32_t k = 0; k < n; ++k)
      for (int32_t j = 0; j < n; ++j) c[i * n + j] += a[i * n + k] * b[k * n + j];
  return c;
}

Matrix mirrored(const std::vector<double>& upper, int32_t n, double factor) {
  Matrix m(upper.size());
  for (int32_t i = 0; i < n; ++i)
    for (int32_t j = i; j < n; ++j) m[i * n + j] = m[j * n + i] = upper[i * n + j] * factor;
  return m;
}

// sum_i f(value_i) v_i v_i^T
template <class F>
Matrix function_of(const SymmetricEigen& e, int32_t n, F&& f) {
  Matrix m(size_t(n) * n);
  for (int32_t k = 0; k < n; ++k) {
    const double weight = f(e.values[k]);
    const double* v = e.vectors.data() + int64_t{k} * n;
    for (int32_t i = 0; i < n; ++i)
      for (int32_t j = 0; j < n; ++j) m[i * n + j] += weight * v[i] * v[j];
  }
  return m;
}

float level_of(float u, int32_t bits) {
  const int32_t code = ops::code_of(u);
  return bits == 0 ? 0.0f : ops::kLevelStep * static_cast<float>(bits == 2 ? ops::kLevels2[code >> 2] : ops::kLevels4[code]);
}

// Mean squared error of each axis over the sample, in both grades.
void measure_errors(const std::vector<float>& sample, int32_t d, HeadMap& map) {
  std::vector<double> coarse(d), fine(d);
  const int64_t count = static_cast<int64_t>(sample.size()) / d;
  for (int64_t s = 0; s < count; ++s)
    for (int32_t a = 0; a < d; ++a) {
      float u = 0;
      for (int32_t i = 0; i < d; ++i) u += map.to_axes[a * d + i] * (sample[s * d + i] - map.mean[i]);
      coarse[a] += std::pow(u - level_of(u, map.bits.coarse(a / 4)), 2);
      fine[a] += std::pow(u - level_of(u, map.bits.fine(a / 4)), 2);
    }
  for (int32_t a = 0; a < d; ++a) {
    map.coarse_error.push_back(static_cast<float>(coarse[a] / static_cast<double>(count)));
    map.fine_error.push_back(static_cast<float>(fine[a] / static_cast<double>(count)));
  }
}

double distortion(int32_t bits) { return bits == 4 ? ops::kDistortion4 : bits == 2 ? ops::kDistortion2 : ops::kDistortion0; }

// The best (groups of 4 bits, groups of 2 bits) that use `units`, at least as many bits as (least4, least2) everywhere.
std::pair<int32_t, int32_t> best_share(const std::vector<double>& variance, int32_t units, int32_t least4, int32_t least2) {
  const auto groups = static_cast<int32_t>(variance.size()) / 4;
  std::pair<int32_t, int32_t> best{least4, least2};
  double least_error = INFINITY;
  for (int32_t n4 = least4; 2 * n4 <= units; ++n4) {
    const int32_t n2 = std::min(units - 2 * n4, groups - n4);
    if (n4 + n2 < least4 + least2) continue;
    double error = 0;
    for (int32_t g = 0; g < groups; ++g)
      for (int32_t j = 0; j < 4; ++j) error += variance[4 * g + j] * distortion(g < n4 ? 4 : g < n4 + n2 ? 2 : 0);
    if (error < least_error) least_error = error, best = {n4, n2};
  }
  return best;
}

}  // namespace

ops::HeadBits share_bits(const std::vector<double>& variance) {
  const auto d = static_cast<int32_t>(variance.size());
  const auto [c4, c2] = best_share(variance, ops::coarse_units(d), 0, 0);
  const auto [f4, f2] = best_share(variance, d / 4, c4, c2);
  return {static_cast<uint8_t>(c4), static_cast<uint8_t>(c2), static_cast<uint8_t>(f4), static_cast<uint8_t>(f2)};
}

HeadMap fit_head_map(const HeadStatistics& s, int32_t d) {
  TS_CHECK(ops::has_codes(d) && s.keys > 1 && s.queries > 1);
  const auto n = static_cast<double>(s.keys);
  HeadMap map;
  for (int32_t i = 0; i < d; ++i) map.mean.push_back(static_cast<float>(s.shift[i] + s.key_sum[i] / n));
  Matrix keys = mirrored(s.key_square, d, 1 / n);
  for (int32_t i = 0; i < d; ++i)
    for (int32_t j = 0; j < d; ++j) keys[i * d + j] -= s.key_sum[i] / n * (s.key_sum[j] / n);
  Matrix queries = mirrored(s.query_square, d, 1 / static_cast<double>(s.queries));
  double trace = 0;
  for (int32_t i = 0; i < d; ++i) trace += queries[i * d + i];
  // A direction in which no query has pointed yet still counts for a thousandth of the average one.
  for (int32_t i = 0; i < d; ++i) queries[i * d + i] += std::max(1e-3 * trace / d, 1e-12);

  const SymmetricEigen q = symmetric_eigen(queries, d);
  const Matrix root = function_of(q, d, [](double x) { return std::sqrt(std::max(x, 1e-12)); });
  const Matrix inverse = function_of(q, d, [](double x) { return 1 / std::sqrt(std::max(x, 1e-12)); });
  const SymmetricEigen k = symmetric_eigen(product(product(root, keys, d), root, d), d);
  std::vector<double> variance = k.values;
  const double floor = std::max(1e-9 * variance[0], 1e-18);
  for (double& x : variance) x = std::max(x, floor);
  map.bits = share_bits(variance);
  map.variance.assign(variance.begin(), variance.end());

  // u = diag(1/sd) R root (k - mean), c = diag(sd) R inverse q: rows of R are the axes.
  const Matrix forward = product(k.vectors, root, d), backward = product(k.vectors, inverse, d);
  for (int32_t a = 0; a < d; ++a)
    for (int32_t i = 0; i < d; ++i) {
      const double sd = std::sqrt(variance[a]);
      map.to_axes.push_back(static_cast<float>(forward[a * d + i] / sd));
      map.from_axes.push_back(static_cast<float>(backward[a * d + i] * sd));
    }
  measure_errors(s.sample, d, map);
  return map;
}

}  // namespace tinyserve
