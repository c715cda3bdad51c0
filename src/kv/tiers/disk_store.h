#pragma once
// The file of the disk tier: slots of one page each, found again after a restart. Nothing here has a thread or an index;
// see disk_tier.h for those.
//
//   header, 4096 bytes: magic, version, page size, fingerprint, hash key, file id, checksum
//   segment 0: 4096 bytes of records, then its slots; segment 1; ... all of one length, so that the file can grow and
//   be cut without moving anything. A slot is a page's bytes rounded up to 4096.
//
// A record (64 bytes) names the page in its slot: name, XXH3-128 of the page, a sequence number, a checksum of itself.
// The page is written first and its record after it. Whatever moment the process dies at, a record either is the old
// one or the new one or fails its checksum; a page that is not the one its record speaks of fails the record's checksum
// of it, which is checked whenever the page is read. So no order of write-back has to be forced and fsync is not used:
// kill -9 loses what was not yet written to the system, a power cut also what the system had not yet written to the disk.
// Checksums are seeded with the file's random id: what an earlier file left on the disk never fits.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kv/page_hash.h"
#include "kv/tiers/disk_file.h"

namespace tinyserve {

struct DiskStoreConfig {
  int64_t page_bytes = 0;   ///< of one page's K and V, all layers
  PageHash fingerprint;     ///< of everything a page's bytes depend on but its tokens
  HashKey hash_key{};       ///< kept in a file made anew; an older file's own is used instead
};

/// What a file held when it was opened.
struct FoundPage {
  int32_t slot = 0;
  PageHash name;
  uint64_t sequence = 0;  ///< larger: written later
};

class DiskStore {
 public:
  /// Takes the file over, making it anew (empty) when it is ours but not usable: another model's, another version's, or
  /// damaged. Null when it must not be touched (not ours) or cannot be used (I/O errors); `why` says what is the matter
  /// in either case, and stays empty when nothing is.
  static std::unique_ptr<DiskStore> open(std::unique_ptr<DiskFile> file, const DiskStoreConfig& config, int64_t max_bytes,
                                         std::string& why);

  const HashKey& hash_key() const { return hash_key_; }
  int64_t page_bytes() const { return page_bytes_; }
  int64_t slot_bytes() const { return slot_bytes_; }        ///< page_bytes rounded up to 4096
  int32_t segment_slots() const { return segment_slots_; }  ///< consecutive slots with nothing between them
  int32_t max_slots() const { return max_slots_; }          ///< that `max_bytes` allows: whole segments
  int32_t num_slots() const { return num_slots_; }          ///< that the file has now: whole segments
  static int64_t min_bytes(int64_t page_bytes);             ///< least `max_bytes`: one segment

  /// All pages whose records are whole, by sequence number; of two with one name the later. Counts records that are
  /// neither whole nor empty in `num_torn`. 0 or -errno.
  int scan(std::vector<FoundPage>& found, int32_t& num_torn);
  /// Another segment, if max_slots() allows. 0 or -errno.
  int grow();
  /// Writes slots [first, first + names.size()), all of one segment: images lie slot_bytes() apart in `images`. The
  /// caller's index must not name these slots before it returns 0. 0 or -errno.
  int write(int32_t first, std::span<const PageHash> names, std::span<const std::byte> images);
  /// Reads slots [first, first + names.size()) of one segment; ok[i]: slot first + i is that page, whole. 0 or -errno.
  int read(int32_t first, std::span<const PageHash> names, std::span<std::byte> images, std::span<uint8_t> ok);
  /// Empties a slot's record, so that a restart does not find it.
  int erase(int32_t slot);

 private:
  struct Record;
  explicit DiskStore(std::unique_ptr<DiskFile> file) : file_(std::move(file)) {}
  int read_header(const DiskStoreConfig& config, std::string& why);
  int make_anew(const DiskStoreConfig& config);
  int64_t segment_at(int32_t segment) const;
  int64_t record_at(int32_t slot) const;
  int64_t slot_at(int32_t slot) const;
  Record make_record(const PageHash& name, std::span<const std::byte> page);
  bool whole(const Record& record) const;
  PageHash checksum(std::span<const std::byte> page) const;

  std::unique_ptr<DiskFile> file_;
  HashKey hash_key_{};
  uint64_t file_id_ = 0, next_sequence_ = 1;
  int64_t page_bytes_ = 0, slot_bytes_ = 0;
  int32_t segment_slots_ = 0, max_slots_ = 0, num_slots_ = 0;
};

}  // namespace tinyserve
