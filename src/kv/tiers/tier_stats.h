#pragma once
// Plain counts of what the tiers did; /metrics and /debug/kv show them. Counters only grow.

#include <cstdint>

namespace tinyserve {

/// Copies of page runs between two places. A transfer is one contiguous copy (of one layer's K or V of a run, or of one
/// run of slots of the disk).
struct TransferStats {
  uint64_t pages = 0;
  uint64_t bytes = 0;
  uint64_t transfers = 0;
  double seconds = 0;
  double bytes_per_transfer() const { return transfers ? static_cast<double>(bytes) / static_cast<double>(transfers) : 0; }
  double gb_per_s() const { return seconds > 0 ? static_cast<double>(bytes) / seconds / 1e9 : 0; }
  void add(const TransferStats& o) {
    pages += o.pages, bytes += o.bytes, transfers += o.transfers, seconds += o.seconds;
  }
};

struct DiskStats {
  int64_t pages = 0;      ///< held
  int64_t max_pages = 0;  ///< that the size limit allows
  int64_t queued_bytes = 0;
  uint64_t pages_found = 0;  ///< when the file was opened
  uint64_t evicted = 0;
  uint64_t turned_away = 0;    ///< pages not written because the queue was full or the disk refused
  uint64_t corrupt = 0;        ///< pages that were not what their records say
  uint64_t write_errors = 0;   ///< failed calls
  uint64_t read_errors = 0;
  TransferStats written, read;
};

struct TierStats {
  // Host memory.
  int64_t host_pages = 0;      ///< held
  int64_t host_max_pages = 0;  ///< 0: there is no such tier
  TransferStats host_down;     ///< cache to host
  TransferStats host_up;       ///< host to cache
  uint64_t host_evicted = 0;
  // Disk; max_pages is 0 without one.
  DiskStats disk;
  TransferStats disk_up;  ///< read pages into the cache
  // What requests got.
  uint64_t pool_hit_pages = 0, host_hit_pages = 0, disk_hit_pages = 0;  ///< found and taken, on admission
  uint64_t recomputed_pages = 0;      ///< full pages of admitted requests that were in no tier
  uint64_t refused_by_cost = 0;       ///< pages that were there, but dearer to bring back than to compute again
  uint64_t reads_given_up = 0;        ///< reads that took too long or failed: recomputed
  uint64_t pages_lost = 0;            ///< evicted named pages that went nowhere
  int64_t loading = 0;                ///< requests waiting for their pages now
  // Measured costs; 0 before the first measurement.
  double prefill_s_per_token = 0;
  double host_s_per_page = 0;
  double disk_s_per_page = 0;
  double recompute_s_per_page = 0;
  double large_copy_gb_per_s = 0;  ///< one copy to host memory as large as that tier, 64 MiB at most; 0: there is no such tier
};

}  // namespace tinyserve
