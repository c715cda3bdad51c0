#include "select/audit.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace tinyserve {
namespace {

/// SplitMix64's finaliser (Steele, Lea and Flood, 2014).
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t not_zero(uint64_t x) { return x ? x : 1; }

constexpr double kNormal = 1.959964;  // 97.5% quantile of the normal distribution

/// 97.5% quantile of Student's t: exact for one and two degrees of freedom, else Cornish and Fisher's expansion (off by
/// less than 0.5% from 3 degrees on).
double student(double freedom) {
  constexpr double z = kNormal;
  if (freedom < 1.5) return 12.7062;
  if (freedom < 2.5) return 4.3027;
  const double z2 = z * z, f = freedom;
  return z + z * (z2 + 1) / (4 * f) + z * ((5 * z2 + 16) * z2 + 3) / (96 * f * f) +
         z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / (384 * f * f * f);
}

}  // namespace

Interval AuditedError::interval(int64_t reads) const {
  if (reads == 0) return {};
  const double mean = sum / static_cast<double>(reads);
  if (variance <= 0) return {mean, mean, mean};
  const double deviation = std::sqrt(variance), half = student(variance * variance / freedom) * deviation;
  constexpr double kMostSkewness = 0.8;  // beyond it one term says nothing; the interval keeps its mean
  const double skewness = std::clamp(third / (variance * deviation), -kMostSkewness, kMostSkewness);
  const double moved = skewness * (2 * kNormal * kNormal + 1) / 6 * deviation;
  const auto n = static_cast<double>(reads);
  return {mean, mean + (moved - half) / n, mean + (moved + half) / n};
}

void Audit::follow(int32_t token) { seed_ = mix(seed_ ^ static_cast<uint32_t>(token)); }

uint64_t Audit::bits(int32_t position) const { return not_zero(mix(seed_ ^ mix(static_cast<uint64_t>(position)))); }

uint64_t Audit::bits_of_layer(uint64_t bits, int32_t layer) {
  return not_zero(mix(bits + static_cast<uint64_t>(layer)));
}

void Audit::Series::add(const ops::SparseStats::Draw& draw) {
  const double error =
      draw.probability > 0 ? (double{draw.true_mass} - double{draw.counted}) / double{draw.probability} : 0;
  if (count > 0) differences += (error - last) * (error - last) / 2;
  last = error, sum += error, squares += error * error, cubes += error * error * error;
  ++count, draws += draw.probability > 0;
}

AuditedError Audit::Series::error() const {
  AuditedError e{.draws = draws, .sum = sum};
  const auto n = static_cast<double>(count);
  // One draw alone says no more about its variance than that its square is at least that much, on average.
  e.variance = count < 2 ? squares : differences * n / (n - 1);
  const double freedom = count < 2 ? 1 : 2 * (n - 1) * (n - 1) / (3 * n - 4);
  // The mean of a squared estimate is the square times 1 + 2 / freedom.
  e.freedom = e.variance * e.variance / (freedom + 2);
  if (count > 2) {
    const double mean = sum / n;
    e.third = n * n / ((n - 1) * (n - 2)) * (cubes - 3 * mean * squares + 2 * n * mean * mean * mean);
  }
  return e;
}

void Audit::add(int32_t layer, int32_t head, const ops::SparseStats& stats) {
  if (layers_.size() <= static_cast<size_t>(layer)) layers_.resize(static_cast<size_t>(layer) + 1);
  std::vector<Pair>& heads = layers_[static_cast<size_t>(layer)];
  if (heads.size() <= static_cast<size_t>(head)) heads.resize(static_cast<size_t>(head) + 1);
  Pair& pair = heads[static_cast<size_t>(head)];
  pair.estimated.add(stats.page);
  pair.coded.add(stats.token);
  ++sums_.reads;
  sums_.exact += stats.exact_share, sums_.coded += stats.coded_share, sums_.estimated += stats.estimated_share;
  ++recent_.reads;
  recent_.counted += stats.estimated_share;
  recent_.audited += stats.estimated_share + pair.estimated.last;
}

void Audit::add(const DenseCheck& check) {
  ++sums_.checked;
  sums_.true_estimated += check.true_estimated, sums_.true_coded += check.true_coded,
      sums_.output_error += check.output_error;
}

AuditSums Audit::sums() const {
  AuditSums sums = sums_;
  for (const std::vector<Pair>& heads : layers_)
    for (const Pair& pair : heads)
      sums.estimated_error.add(pair.estimated.error()), sums.coded_error.add(pair.coded.error());
  return sums;
}

Audit::Recent Audit::take_recent() { return std::exchange(recent_, {}); }

}  // namespace tinyserve
