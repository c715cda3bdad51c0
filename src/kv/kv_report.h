#pragma once
// What can be told about KV memory: plain structs, for metrics, the server's /debug/kv and the replay's report.

#include <array>
#include <cstdint>

namespace tinyserve {

/// Where the pages came from that prompts needed, and how long one takes from there. Counts only grow.
struct TierAccess {
  enum Tier { kDevice, kHost, kDisk, kRecompute, kNumTiers };
  static constexpr std::array<const char*, kNumTiers> kNames = {"device", "host", "disk", "recompute"};
  std::array<double, kNumTiers> pages{};
  std::array<double, kNumTiers> latency_s{};  ///< of one page; 0: not measured yet

  /// F_access: 0 when one tier serves everything, or all take as long.
  double fragmentation() const;
};

/// A picture of one moment.
struct FragmentationReport {
  double spatial = 0, temporal = 0, access = 0, total = 0;
  double external = 0;  ///< 1 - largest free run / free pages
  int32_t free_pages = 0, free_runs = 0, largest_run = 0;
  int64_t sequences = 0;    ///< that hold pages
  int64_t descriptors = 0;  ///< physical runs of all of them
  double descriptors_per_sequence = 0;
  double pages_per_run = 0, bytes_per_run = 0;
  uint64_t growths = 0, contiguous_growths = 0;  ///< pages added to sequences, since the start; right behind their last page
  double growth_contiguous() const { return growths > 0 ? static_cast<double>(contiguous_growths) / static_cast<double>(growths) : 1; }
  double slot_utilisation = 0;  ///< filled token slots / slots of used pages; 1 when nothing is used
};

/// What compaction has done so far. Grows only.
struct CompactionStats {
  uint64_t pages_moved = 0;      ///< used pages, and cached content that made room for them
  uint64_t pages_displaced = 0;  ///< of these, cached content
  uint64_t pages_discarded = 0;  ///< cached content given up for room
  uint64_t jobs = 0, rests = 0;  ///< jobs begun; times that nothing paid any more
  uint64_t failed_copies = 0;    ///< batches undone
  double pages_won = 0;          ///< of run length: growth of each sequence's mean run, and of the longest free run
  double seconds = 0;            ///< planning and copying
};

}  // namespace tinyserve
