#pragma once
// The disk tier: a DiskStore, an index of what it holds, and the one thread that reads and writes it. The engine's thread
// looks names up and hands jobs over; it never waits for the disk.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "kv/page_hash.h"
#include "kv/tiers/disk_store.h"
#include "kv/tiers/tier_index.h"
#include "kv/tiers/tier_stats.h"

namespace tinyserve {

struct DiskTierConfig {
  std::filesystem::path path;
  int64_t max_bytes = 0;                     ///< of the file; at least DiskStore::min_bytes()
  DiskStoreConfig store;
  int64_t queue_bytes = int64_t{64} << 20;   ///< pages waiting to be written; more are turned away
  double retry_s = 10;                       ///< after a failed write, nothing is written for so long
};

class DiskTier;

/// Bytes of the queue of writes that a buffer has reserved; they are given back when it goes.
class QueueRoom {
 public:
  QueueRoom() = default;
  QueueRoom(DiskTier& tier, int64_t bytes) : tier_(&tier), bytes_(bytes) {}
  QueueRoom(QueueRoom&& other) noexcept : tier_(std::exchange(other.tier_, nullptr)), bytes_(other.bytes_) {}
  QueueRoom& operator=(QueueRoom&& other) noexcept {
    std::swap(tier_, other.tier_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~QueueRoom();
  /// Whoever takes the bytes gives them back.
  int64_t take() { return std::exchange(tier_, nullptr) ? bytes_ : 0; }

 private:
  DiskTier* tier_ = nullptr;
  int64_t bytes_ = 0;
};

/// Pages on their way to or from the disk: page i lies at data + i * stride.
struct PageImages {
  QueueRoom room;  // of what is to be written
  std::vector<PageHash> names;
  AlignedBuffer data;
  int64_t stride = 0;
  std::byte* page(size_t i) { return data.data() + i * stride; }
};

/// A read under way. The owner may look at `images` once done() says so; dropping the pointer gives the read up.
struct DiskRead {
  PageImages images;
  int32_t num_read = 0;  ///< leading pages that are there, whole
  double seconds = 0;    ///< it took, once begun
  bool done() const { return done_.load(std::memory_order_acquire); }

 private:
  friend class DiskTier;
  std::atomic<bool> done_ = false;
};

class DiskTier {
 public:
  /// Opens and scans the file, and starts the thread. Whatever is wrong with the file ends in one log line, never in an
  /// error: null when it cannot be used at all.
  static std::unique_ptr<DiskTier> open(const DiskTierConfig& config);
  /// The same with an open file, for tests.
  static std::unique_ptr<DiskTier> open(std::unique_ptr<DiskFile> file, const DiskTierConfig& config);
  /// Writes what is queued, then ends the thread and closes the file.
  ~DiskTier();
  DiskTier(const DiskTier&) = delete;
  DiskTier& operator=(const DiskTier&) = delete;

  // All of these may be called from any thread.
  const HashKey& hash_key() const { return hash_key_; }
  /// Whether the page is there, or waits to be written.
  bool contains(const PageHash& name) const;
  /// How many of these pages, from the first on, are.
  int32_t match(std::span<const PageHash> names) const;
  /// A buffer for as many pages as may be written now, at most `num_pages`; none when the queue is full or the disk
  /// refuses writes. Fill in names and pages and hand it to write().
  std::optional<PageImages> write_buffer(int32_t num_pages);
  void write(PageImages images);
  /// Buffers are filled, or wait to be written, or are being written.
  bool writing() const;
  /// Whether the disk takes writes; false for a while after one failed.
  bool accepts() const;
  /// Begins to read pages, in order.
  std::shared_ptr<DiskRead> read(std::vector<PageHash> names);
  /// Returns when a read has ended since the last call, or after `seconds`.
  void wait_for_read(double seconds);
  /// Returns when nothing is queued or under way. For tests and measurements.
  void drain();
  DiskStats stats() const;
  /// TS_CHECKs the index. For tests.
  void check_invariants() const;

 private:
  friend class QueueRoom;
  struct NameHash {
    size_t operator()(const PageHash& name) const { return name.low; }
  };

  DiskTier(std::unique_ptr<DiskStore> store, const DiskTierConfig& config);
  void restore(const std::filesystem::path& path);
  void forget_queued(std::span<const PageHash> names);
  void give_back(int64_t bytes);
  void loop();
  void run_write(PageImages& images);
  void run_read(DiskRead& read);
  void reserve_slots(int32_t count, std::vector<SlotRef>& refs);
  bool waits_for_write(const DiskRead& read) const;
  void failed(const char* what, int error);
  void forget_broken(int32_t slot, const PageHash& name);

  const DiskTierConfig config_;
  HashKey hash_key_{};
  std::unique_ptr<DiskStore> store_;  // the thread's own once it runs

  mutable std::mutex mutex_;
  std::condition_variable work_, ended_;
  // Under the mutex:
  TierIndex index_;
  std::unordered_map<PageHash, int32_t, NameHash> queued_;  // names in writes_ and how often
  std::deque<PageImages> writes_;
  std::deque<std::shared_ptr<DiskRead>> reads_;
  int64_t queued_bytes_ = 0;
  double writes_paused_until_ = 0, growth_paused_until_ = 0;
  bool write_trouble_ = false, read_trouble_ = false;
  bool busy_ = false, stopping_ = false;
  uint64_t reads_ended_ = 0, reads_seen_ = 0;
  DiskStats stats_;
  std::thread thread_;
};

}  // namespace tinyserve
