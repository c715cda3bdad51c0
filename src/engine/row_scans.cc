#include "engine/row_scans.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/row_scans.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// Plain loops: the compiler vectorises them for the target in force.
HWY_BEFORE_NAMESPACE();
namespace tinyserve::row_scans::HWY_NAMESPACE {

constexpr int kLanes = 16;

/// exp(x) for x <= 0: 2^n e^r with |r| <= ln2 / 2 and a polynomial (Taylor, degree 6). 0 below -87.
inline float exp_nonpositive(float x) {
  const float clamped = x > -87.0f ? x : -87.0f;
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // rounds to an integer in the low bits of the mantissa
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t exponent = static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) << 23);
  const float y = std::bit_cast<float>(std::bit_cast<int32_t>(p) + exponent);
  return x >= -87.0f ? y : 0.0f;
}

float max_or_nan(const float* x, int32_t n) {
  float best[kLanes];
  int32_t nans[kLanes] = {};
  for (float& b : best) b = -std::numeric_limits<float>::infinity();
  int32_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
      nans[j] |= x[i + j] != x[i + j];
    }
  }
  for (; i < n; ++i) {
    best[0] = x[i] > best[0] ? x[i] : best[0];
    nans[0] |= x[i] != x[i];
  }
  int32_t nan = 0;
  for (int j = 0; j < kLanes; ++j) {
    best[0] = best[j] > best[0] ? best[j] : best[0];
    nan |= nans[j];
  }
  return nan ? std::numeric_limits<float>::quiet_NaN() : best[0];
}

int32_t next_block_above(const float* x, int32_t begin, int32_t n, float threshold) {
  for (; begin + 64 <= n; begin += 64) {
    int32_t any = 0;
    for (int j = 0; j < 64; ++j) any |= x[begin + j] > threshold;
    if (any) return begin;
  }
  for (int32_t i = begin; i < n; ++i) {
    if (x[i] > threshold) return begin;
  }
  return n;
}

/// Sum over at most a block, 16 lanes side by side.
inline double block_sum(const float* w, int32_t n) {
  float lanes[kLanes] = {};
  int32_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += w[i + j];
  }
  for (; i < n; ++i) lanes[0] += w[i];
  double sum = 0;
  for (int j = 0; j < kLanes; ++j) sum += lanes[j];
  return sum;
}

void exp_weights(const float* x, int32_t n, float max, float temperature, float* weights, double* block_sums) {
  float scratch[kBlock];
  for (int32_t begin = 0; begin < n; begin += kBlock) {
    const int32_t count = n - begin < kBlock ? n - begin : kBlock;
    float* w = weights ? weights + begin : scratch;
    for (int32_t i = 0; i < count; ++i) w[i] = exp_nonpositive((x[begin + i] - max) / temperature);
    *block_sums++ = block_sum(w, count);
  }
}

void cut_weights(float* weights, int32_t n, float floor, int32_t last_equal, double* block_sums) {
  for (int32_t begin = 0; begin < n; begin += kBlock) {
    const int32_t count = n - begin < kBlock ? n - begin : kBlock;
    float* w = weights + begin;
    const int32_t inclusive = std::clamp(last_equal + 1 - begin, 0, count);
    for (int32_t i = 0; i < inclusive; ++i) w[i] = w[i] >= floor ? w[i] : 0.0f;
    for (int32_t i = inclusive; i < count; ++i) w[i] = w[i] > floor ? w[i] : 0.0f;
    *block_sums++ = block_sum(w, count);
  }
}

}  // namespace tinyserve::row_scans::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tinyserve::row_scans {
HWY_EXPORT(max_or_nan);
HWY_EXPORT(next_block_above);
HWY_EXPORT(exp_weights);
HWY_EXPORT(cut_weights);

float max_or_nan(const float* x, int32_t n) { return HWY_DYNAMIC_DISPATCH(max_or_nan)(x, n); }
int32_t next_block_above(const float* x, int32_t begin, int32_t n, float threshold) {
  return HWY_DYNAMIC_DISPATCH(next_block_above)(x, begin, n, threshold);
}
void exp_weights(const float* x, int32_t n, float max, float temperature, float* weights, double* block_sums) {
  HWY_DYNAMIC_DISPATCH(exp_weights)(x, n, max, temperature, weights, block_sums);
}
void cut_weights(float* weights, int32_t n, float floor, int32_t last_equal, double* block_sums) {
  HWY_DYNAMIC_DISPATCH(cut_weights)(weights, n, floor, last_equal, block_sums);
}

}  // namespace tinyserve::row_scans
#endif  // HWY_ONCE
