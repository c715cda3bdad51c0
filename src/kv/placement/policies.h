#pragma once
// Every placement policy's maker, for the registry.

#include <memory>

#include "kv/placement.h"

namespace tinyserve {

/// The placement of least cost (objective.h) among a few found in O(log N); keeps room behind growing sequences.
std::unique_ptr<PageAllocator> make_best_fit(const PlacementConfig& config);
/// What vLLM does: one queue of free pages, cached and empty alike, taken from its head, returned to its tail in the
/// order of release (a sequence releases its last page first).
std::unique_ptr<PageAllocator> make_free_queue(const PlacementConfig& config);
/// The lowest run that is long enough; without one, the longest runs. Grows in place when the next page is free.
std::unique_ptr<PageAllocator> make_first_fit(const PlacementConfig& config);

/// The binary buddy system: blocks of powers of two, split and joined in halves.
std::unique_ptr<PageAllocator> make_buddy(const PlacementConfig& config);
/// Any free pages: what order is worth at least.
std::unique_ptr<PageAllocator> make_random(const PlacementConfig& config);

}  // namespace tinyserve
