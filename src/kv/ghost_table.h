#pragma once
#include <bit>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "kv/page_hash.h"

namespace tinyserve {

/// Remembers names of evicted pages, with their kind and since when they wait (reuse_model.h): four for each page of
/// the pool, 8 bytes each. Sets of one cache line; the oldest of a set makes room. A name is kept as 24 + log2(sets)
/// bits: one taken for another is noise in a statistic and nothing else.
class GhostTable {
 public:
  struct Ghost {
    uint8_t kind;
    uint32_t since;
  };

  explicit GhostTable(int32_t num_pages)
      : mask_(std::bit_ceil(static_cast<uint64_t>(num_pages) * kPerPage / kWays + 1) - 1), entries_((mask_ + 1) * kWays) {}

  /// What is known of the name, which is forgotten.
  std::optional<Ghost> take(const PageHash& name) {
    Entry* set = &entries_[(name.high & mask_) * kWays];
    for (int32_t i = 0; i < kWays; ++i) {
      if (set[i].tag_kind >> 8 != tag(name) || set[i].tag_kind == 0) continue;
      const Entry found = std::exchange(set[i], Entry{});
      return Ghost{static_cast<uint8_t>(found.tag_kind & 0xff), found.since};
    }
    return std::nullopt;
  }
  /// Returns what had to go for it. The name is not in the table.
  std::optional<Ghost> put(const PageHash& name, Ghost ghost) {
    Entry* set = &entries_[(name.high & mask_) * kWays];
    Entry* place = set;
    for (int32_t i = 0; i < kWays; ++i) {
      if (set[i].tag_kind == 0) {
        place = &set[i];
        break;
      }
      if (static_cast<int32_t>(set[i].since - place->since) < 0) place = &set[i];
    }
    const Entry gone = std::exchange(*place, Entry{tag(name) << 8 | ghost.kind, ghost.since});
    if (gone.tag_kind == 0) return std::nullopt;
    return Ghost{static_cast<uint8_t>(gone.tag_kind & 0xff), gone.since};
  }

 private:
  static constexpr uint64_t kPerPage = 4;
  static constexpr int32_t kWays = 8;
  struct Entry {
    uint32_t tag_kind = 0;  // 0: none
    uint32_t since = 0;
  };
  static uint32_t tag(const PageHash& name) { return static_cast<uint32_t>(name.high >> 40) | 1; }

  uint64_t mask_;
  std::vector<Entry> entries_;  // [sets, kWays]
};

}  // namespace tinyserve
