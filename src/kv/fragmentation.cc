#include "kv/fragmentation.h"

#include <algorithm>
#include <cmath>

namespace tinyserve {

double TierAccess::fragmentation() const {
  double all = 0, mean = 0;
  for (int32_t k = 0; k < kNumTiers; ++k) {
    all += pages[k];
    mean += pages[k] * latency_s[k];
  }
  if (all <= 0 || mean <= 0) return 0;
  mean /= all;
  double entropy = 0, variance = 0;
  for (int32_t k = 0; k < kNumTiers; ++k) {
    const double share = pages[k] / all;
    if (share <= 0) continue;
    entropy -= share * std::log2(share);
    variance += share * (latency_s[k] - mean) * (latency_s[k] - mean);
  }
  return entropy * variance / (mean * mean);
}

double spatial_fragmentation(const RunStatistics& runs, const WeighedRuns& weighed) {
  const double mean = runs.mean();
  if (mean <= 0) return 0;
  const double sum = weighed.squares / (mean * mean) - 2 * weighed.lengths / mean + weighed.weights;
  return std::max(0.0, sum / runs.num_runs);
}

FragmentationReport report_fragmentation(const FragmentationConfig& config, const PagePool& pool, int32_t page_size,
                                         int64_t page_bytes, const TierAccess& recent) {
  const RunStatistics runs = pool.run_statistics();
  const PageHolders& holders = pool.holders();
  FragmentationReport r;
  r.spatial = spatial_fragmentation(runs, pool.runs().weighed());
  r.temporal = holders.accesses().temporal();
  r.access = recent.fragmentation();
  r.total = config.alpha * r.spatial + config.beta * r.temporal + config.gamma * r.access;
  r.external = runs.external_fragmentation();
  r.free_pages = runs.free_pages;
  r.free_runs = runs.num_runs;
  r.largest_run = runs.largest;
  r.sequences = holders.num_sequences();
  r.descriptors = holders.num_runs();
  if (r.sequences > 0) {
    r.descriptors_per_sequence = static_cast<double>(r.descriptors) / static_cast<double>(r.sequences);
    r.pages_per_run = static_cast<double>(holders.num_entries()) / static_cast<double>(r.descriptors);
    r.bytes_per_run = r.pages_per_run * static_cast<double>(page_bytes);
  }
  r.growths = pool.stats().growths;
  r.contiguous_growths = pool.stats().contiguous_growths;
  r.slot_utilisation = pool.num_used() > 0 ? static_cast<double>(holders.filled_slots()) /
                                                 (static_cast<double>(pool.num_used()) * page_size)
                                           : 1;
  return r;
}

}  // namespace tinyserve
