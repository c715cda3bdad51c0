#pragma once
#include "kv/compactor.h"
#include "kv/fragmentation.h"
#include "kv/placement.h"
#include "kv/prefix_cache.h"

namespace tinyserve {

/// What KvManager is built from: one struct a concern, each defined beside what it configures.
struct KvConfig {
  PlacementConfig placement;
  PrefixConfig prefix;
  FragmentationConfig fragmentation;
  CompactionConfig compaction;
};

}  // namespace tinyserve
