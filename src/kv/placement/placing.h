#pragma once
// What several policies do alike.

#include <span>

#include "kv/page_pool.h"

namespace tinyserve {

/// out[i] = first + i for the first `count` places.
void fill(std::span<int32_t> out, int32_t first, int32_t count);

/// Fills the beginning of `out` with the free pages right after the sequence's last one; returns how many there were.
int32_t grow_in_place(const PagePool& pool, const PageRequest& request, std::span<int32_t> out);

/// Fills `out` from the longest runs, longest first and the last one from its start, but for the run that starts at
/// `skip`, of which nothing is given. Few runs are read besides those used: O(runs used * log runs used).
void split_over_longest(const PagePool& pool, std::span<int32_t> out, int32_t skip = -1);

}  // namespace tinyserve
