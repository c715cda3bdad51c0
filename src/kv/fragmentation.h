#pragma once
// Fragmentation, as numbers (ALGORITHMS section 1):
//
//   F_total = alpha F_spatial + beta F_temporal + gamma F_access
//   F_spatial = 1/N sum over free runs i of ((r_i - mean r) / mean r)^2 exp(-d_i / sigma^2)
//   F_temporal: see access_windows.h
//   F_access = -sum over tiers k of p_k log2 p_k * Var(L) / mean(L)^2
//
// and what stands beside it because F alone misses it. All of it comes from sums that are kept as pages come and go;
// docs/kv-memory.md shows for each figure a case that the others do not see.

#include <cstdint>

#include "kv/kv_report.h"
#include "kv/page_pool.h"

namespace tinyserve {

struct FragmentationConfig {
  double alpha = 1.0 / 3, beta = 1.0 / 3, gamma = 1.0 / 3;
  double sigma = 0.5;          ///< spatial decay; d is a share of the pool, 0 to 1
  int32_t window_steps = 64;   ///< engine steps in a window of accesses
};

/// F_spatial of a pool whose runs are weighed; 0 when nothing is free.
double spatial_fragmentation(const RunStatistics& runs, const WeighedRuns& weighed);

/// O(1). `page_bytes`: K and V of a page. `recent`: accesses of late.
FragmentationReport report_fragmentation(const FragmentationConfig& config, const PagePool& pool, int32_t page_size,
                                         int64_t page_bytes, const TierAccess& recent);

}  // namespace tinyserve
