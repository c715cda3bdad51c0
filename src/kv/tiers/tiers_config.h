#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kv/tiers/disk_file.h"

namespace tinyserve {

/// Where K/V pages go when the cache needs their place. Sizes in bytes.
struct TiersConfig {
  int64_t host_bytes = 0;  ///< of host memory; 0: none
  std::string disk_path;   ///< a file, made when missing; empty: none
  int64_t disk_bytes = int64_t{10} << 30;  ///< the file's limit
  /// Bytes a second of pages that are still in the cache and written to the disk all the same, so that a process that is
  /// killed leaves them behind; 0: only what is evicted is written.
  int64_t disk_write_rate = int64_t{64} << 20;
  /// Names the weights, their precision and whatever else K/V depend on besides tokens; kept in the file, which is started
  /// anew when it differs.
  std::string fingerprint;

  /// Opens the file instead of disk_path; for tests.
  std::function<std::unique_ptr<DiskFile>()> open_disk = {};

  bool any() const { return host_bytes > 0 || !disk_path.empty() || open_disk; }
};

}  // namespace tinyserve
