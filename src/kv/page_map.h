#pragma once
// A picture of all pages: which are used, cached, empty, by whom, how hot. Taken a slice at a time, so that the engine
// does not stop for a pool of millions of pages; between slices the pool goes on changing, and the map says how long it took.

#include <cstdint>
#include <vector>

#include "kv/kv_report.h"
#include "kv/page_pool.h"
#include "kv/tiers/tier_stats.h"

namespace tinyserve {

/// Consecutive pages that are alike.
struct PageSpan {
  int32_t length = 0;
  PageState state = PageState::kEmpty;
  int8_t heat = 0;     ///< round(log2(heat + 1)), 0 of an empty page
  int16_t references = 0;  ///< at most 32767
  uint64_t owner = 0;  ///< uid of the sequence the pages were allocated for, 0: nobody, or the page is empty
  bool operator==(const PageSpan&) const = default;
};

struct PageMap {
  int32_t num_pages = 0, page_size = 0;
  int64_t page_bytes = 0;
  uint64_t first_step = 0, last_step = 0;  ///< in which it was taken
  FragmentationReport fragmentation;       ///< at the end
  CompactionStats compaction;
  TierStats tiers;  ///< all 0 without tiers
  std::vector<PageSpan> spans;  ///< from page 0 on
};

/// Adds pages until all are there, at most `count`; true when complete.
bool extend_page_map(PageMap& map, int32_t& next_page, int32_t count, const PagePool& pool);

}  // namespace tinyserve
