#pragma once
// The passes over a row of logits [n], compiled for each instruction set and chosen at run time. Sums run over 16 lanes
// in one fixed order and nothing is contracted to FMA, so results do not depend on the machine.

#include <cstdint>

namespace tinyserve::row_scans {

constexpr int32_t kBlock = 256;  ///< what a partial sum covers

/// The largest value; NaN when the row has one.
float max_or_nan(const float* x, int32_t n);

/// The first multiple of 64 from `begin` (itself one) on whose block of 64 has a value above `threshold`; n when none
/// has.
int32_t next_block_above(const float* x, int32_t begin, int32_t n, float threshold);

/// weights[i] = exp((x[i] - max) / temperature), block_sums[b] the sum over block b. weights may be null.
void exp_weights(const float* x, int32_t n, float max, float temperature, float* weights, double* block_sums);

/// Zeroes the weights below `floor`, and those equal to it whose index is above `last_equal`; renews the block sums.
void cut_weights(float* weights, int32_t n, float floor, int32_t last_equal, double* block_sums);

}  // namespace tinyserve::row_scans
