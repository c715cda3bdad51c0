#include "select/symmetric_eigen.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tinyserve {
namespace {

constexpr int kMaxSweeps = 60;  // a dozen is what it takes

void rotate(double* x, double* y, int32_t n, double c, double s) {
  for (int32_t i = 0; i < n; ++i) {
    const double a = x[i], b = y[i];
    x[i] = c * a - s * b;
    y[i] = s * a + c * b;
  }
}

}  // namespace

SymmetricEigen symmetric_eigen(std::vector<double> a, int32_t n) {
  std::vector<double> v(static_cast<size_t>(n) * n);
  for (int32_t i = 0; i < n; ++i) v[i * n + i] = 1;
  double size = 0;
  for (const double x : a) size += x * x;
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    double off = 0;
    for (int32_t p = 0; p < n; ++p)
      for (int32_t q = p + 1; q < n; ++q) off += a[p * n + q] * a[p * n + q];
    if (off <= 1e-26 * size) break;
    for (int32_t p = 0; p < n; ++p)
      for (int32_t q = p + 1; q < n; ++q) {
        const double apq = a[p * n + q];
        if (apq * apq <= 1e-30 * size / n) continue;
        const double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        rotate(a.data() + p * n, a.data() + q * n, n, c, s);
        for (int32_t i = 0; i < n; ++i) {  // the columns
          const double x = a[i * n + p], y = a[i * n + q];
          a[i * n + p] = c * x - s * y;
          a[i * n + q] = s * x + c * y;
        }
        rotate(v.data() + p * n, v.data() + q * n, n, c, s);
      }
  }
  std::vector<int32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t x, int32_t y) { return a[x * n + x] > a[y * n + y]; });
  SymmetricEigen out;
  for (const int32_t i : order) {
    out.values.push_back(a[i * n + i]);
    out.vectors.insert(out.vectors.end(), v.begin() + int64_t{i} * n, v.begin() + int64_t{i + 1} * n);
  }
  return out;
}

}  // namespace tinyserve
