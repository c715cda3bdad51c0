#pragma once
#include <cstdint>
#include <memory>

#include "kv/tiers/tier_index.h"

namespace tinyserve {

struct DiskRead;

/// A page that a step brings into the cache from below. Holds on to its source until the step is over.
struct Promotion {
  int32_t page = 0;  ///< of the cache
  SlotRef slot;      ///< of host memory; empty: read from disk
  std::shared_ptr<DiskRead> read;
  int32_t index = 0;  ///< in `read`
};

}  // namespace tinyserve
