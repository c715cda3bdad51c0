#pragma once
// For tests: a disk in memory that outlives the "processes" using it, and that can be full, slow to take all, broken or
// decayed.

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "kv/tiers/disk_file.h"

namespace tinyserve::testing {

struct MemoryDisk {
  std::mutex mutex;
  std::vector<std::byte> bytes;
  int64_t capacity = int64_t{1} << 40;        ///< beyond it: ENOSPC
  int64_t most_per_call = int64_t{1} << 40;   ///< more is moved only in part
  int write_error = 0, read_error = 0;        ///< errno of every call while not 0
  int64_t dies_after = int64_t{1} << 40;      ///< bytes written until the process is gone: later ones are lost
  int64_t reads = 0, writes = 0;
};

class MemoryFile final : public DiskFile {
 public:
  explicit MemoryFile(MemoryDisk& disk) : disk_(disk) {}

  int64_t read(void* to, size_t size, int64_t offset) override {
    const std::lock_guard lock(disk_.mutex);
    ++disk_.reads;
    if (disk_.read_error) return -disk_.read_error;
    const int64_t n = std::clamp<int64_t>(static_cast<int64_t>(disk_.bytes.size()) - offset, 0,
                                          std::min<int64_t>(size, disk_.most_per_call));
    if (n > 0) std::memcpy(to, disk_.bytes.data() + offset, n);
    return n;
  }
  int64_t write(const void* from, size_t size, int64_t offset) override {
    const std::lock_guard lock(disk_.mutex);
    ++disk_.writes;
    if (disk_.write_error) return -disk_.write_error;
    const int64_t n = std::min<int64_t>({static_cast<int64_t>(size), disk_.most_per_call, disk_.capacity - offset});
    if (n <= 0) return -ENOSPC;
    const int64_t kept = std::min(n, disk_.dies_after);
    disk_.dies_after -= kept;
    if (kept > 0) {
      if (static_cast<int64_t>(disk_.bytes.size()) < offset + kept) disk_.bytes.resize(offset + kept);
      std::memcpy(disk_.bytes.data() + offset, from, kept);
    }
    return n;
  }
  int grow(int64_t size) override {
    const std::lock_guard lock(disk_.mutex);
    if (size > disk_.capacity) return -ENOSPC;
    if (disk_.dies_after > 0 && static_cast<int64_t>(disk_.bytes.size()) < size) disk_.bytes.resize(size);
    return 0;
  }
  int truncate(int64_t size) override {
    const std::lock_guard lock(disk_.mutex);
    disk_.bytes.resize(size);
    return 0;
  }
  int64_t size() override {
    const std::lock_guard lock(disk_.mutex);
    return static_cast<int64_t>(disk_.bytes.size());
  }

 private:
  MemoryDisk& disk_;
};

}  // namespace tinyserve::testing
