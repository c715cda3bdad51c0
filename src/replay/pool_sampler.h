#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "replay/measurements.h"

namespace tinyserve {
class PagePool;
class Scheduler;
}  // namespace tinyserve

namespace tinyserve::replay {

/// Looks at a pool and its sequences from outside, independently of the counters the engine keeps: O(pages) a look.
class PoolSampler {
 public:
  PoolSampler(const PagePool& pool, const Scheduler& scheduler, int32_t page_size);

  /// The present state; time and hit rate are the caller's to fill in. `steady`: counts for the distribution below.
  Sample take(bool steady);
  /// Physical runs of each running sequence, over all steady samples: mean and p99. Sorts.
  void summarize(Measurements& out);

 private:
  const PagePool& pool_;
  const Scheduler& scheduler_;
  int32_t page_size_;
  std::vector<int32_t> filled_;      // [num_pages] slots filled, valid where the mark is this look's
  std::vector<uint32_t> marks_;      // [num_pages]
  uint32_t look_ = 0;
  std::vector<int32_t> descriptors_;  // of every sequence of every steady sample
  int64_t sequence_pages_ = 0;        // in them
  int64_t forced_breaks_ = 0;         // between them
  std::vector<std::pair<int32_t, int32_t>> successors_;  // scratch
};

}  // namespace tinyserve::replay
