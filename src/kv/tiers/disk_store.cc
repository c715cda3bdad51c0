#include "kv/tiers/disk_store.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <random>
#include <unordered_map>
#include <utility>

#include "base/check.h"

namespace tinyserve {
namespace {

constexpr int64_t kBlock = 4096;
constexpr int64_t kSegmentBytes = int64_t{16} << 20;  // wanted; a segment has at least one slot and at most 64
constexpr std::array<char, 8> kMagic = {'T', 'S', 'K', 'V', 'P', 'A', 'G', 'E'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kRecordMagic = 0x47505354;  // "TSPG"

struct Header {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t header_bytes;
  uint64_t page_bytes;
  uint64_t file_id;
  PageHash fingerprint;
  HashKey hash_key;
  uint64_t check;  ///< XXH3-64 of all before it
};

int64_t round_up(int64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }
int32_t slots_per_segment(int64_t page_bytes) {
  return static_cast<int32_t>(std::clamp<int64_t>(kSegmentBytes / round_up(page_bytes), 1, 64));
}
uint64_t header_check(const Header& h) { return XXH3_64bits(&h, offsetof(Header, check)); }

}  // namespace

struct DiskStore::Record {
  uint32_t magic = 0, unused = 0;
  PageHash name, payload;
  uint64_t sequence = 0, unused2 = 0;
  uint64_t check = 0;
};

int64_t DiskStore::min_bytes(int64_t page_bytes) {
  return kBlock + kBlock + slots_per_segment(page_bytes) * round_up(page_bytes);
}

int64_t DiskStore::segment_at(int32_t segment) const {
  return kBlock + segment * (kBlock + segment_slots_ * slot_bytes_);
}
int64_t DiskStore::record_at(int32_t slot) const {
  return segment_at(slot / segment_slots_) + slot % segment_slots_ * static_cast<int64_t>(sizeof(Record));
}
int64_t DiskStore::slot_at(int32_t slot) const {
  return segment_at(slot / segment_slots_) + kBlock + slot % segment_slots_ * slot_bytes_;
}

std::unique_ptr<DiskStore> DiskStore::open(std::unique_ptr<DiskFile> file, const DiskStoreConfig& config,
                                           int64_t max_bytes, std::string& why) {
  static_assert(sizeof(Record) == 64 && 64 * sizeof(Record) == kBlock);
  TS_CHECK(config.page_bytes > 0 && max_bytes >= min_bytes(config.page_bytes));
  why.clear();
  std::unique_ptr<DiskStore> store(new DiskStore(std::move(file)));
  DiskStore& s = *store;
  s.page_bytes_ = config.page_bytes;
  s.slot_bytes_ = round_up(config.page_bytes);
  s.segment_slots_ = slots_per_segment(config.page_bytes);
  const int64_t segment_bytes = kBlock + s.segment_slots_ * s.slot_bytes_;
  const int64_t max_segments = std::min((max_bytes - kBlock) / segment_bytes,
                                        int64_t{std::numeric_limits<int32_t>::max() / 2 / s.segment_slots_});
  s.max_slots_ = static_cast<int32_t>(max_segments) * s.segment_slots_;
  int error = s.read_header(config, why);
  if (error == -ESTALE) error = s.make_anew(config);
  const int64_t size = error ? error : s.file_->size();
  if (size >= 0) {
    const int64_t segments = std::min((size - kBlock) / segment_bytes, max_segments);
    s.num_slots_ = static_cast<int32_t>(segments) * s.segment_slots_;
    // What is beyond the limit, or an unfinished segment, goes.
    if (size > s.segment_at(segments)) error = s.file_->truncate(s.segment_at(static_cast<int32_t>(segments)));
  } else {
    error = static_cast<int>(size);
  }
  if (error == 0) return store;
  if (why.empty() || error != -EPERM) why = std::strerror(-error);
  return nullptr;
}

/// 0: ours and usable. -ESTALE: to be made anew. -EPERM: not ours. Others: I/O.
int DiskStore::read_header(const DiskStoreConfig& config, std::string& why) {
  const int64_t size = file_->size();
  if (size < 0) return static_cast<int>(size);
  if (size == 0) return -ESTALE;
  Header h{};
  const int64_t length = std::min<int64_t>(size, sizeof h);
  if (const int error = read_fully(*file_, std::as_writable_bytes(std::span(&h, 1)).first(length), 0)) return error;
  // A file whose first bytes are not ours may be anything, so it is left alone; but a short one of zeros is what a crash
  // leaves of one that was just made.
  const auto bytes = std::as_bytes(std::span(&h, 1)).first(length);
  const bool zero =
      size <= kBlock && std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
  if (!zero && std::memcmp(h.magic.data(), kMagic.data(), std::min<size_t>(length, kMagic.size())) != 0) {
    why = "it is not a file of this program and is left as it is";
    return -EPERM;
  }
  if (zero || size < kBlock || h.check != header_check(h) || h.header_bytes != sizeof h)
    why = "its header is damaged; starting an empty one";
  else if (h.version != kVersion)
    why = "it has another version's layout; starting an empty one";
  else if (!(h.fingerprint == config.fingerprint) || h.page_bytes != static_cast<uint64_t>(config.page_bytes))
    why = "it belongs to another model, precision or backend; starting an empty one";
  else {
    hash_key_ = h.hash_key;
    file_id_ = h.file_id;
    return 0;
  }
  return -ESTALE;
}

int DiskStore::make_anew(const DiskStoreConfig& config) {
  if (const int error = file_->truncate(0)) return error;
  std::random_device device;
  file_id_ = uint64_t{device()} << 32 | device();
  hash_key_ = config.hash_key;
  Header h{};
  h.magic = kMagic;
  h.version = kVersion;
  h.header_bytes = sizeof h;
  h.page_bytes = page_bytes_;
  h.file_id = file_id_;
  h.fingerprint = config.fingerprint;
  h.hash_key = hash_key_;
  h.check = header_check(h);
  std::array<std::byte, kBlock> block{};
  std::memcpy(block.data(), &h, sizeof h);
  return write_fully(*file_, block, 0);
}

PageHash DiskStore::checksum(std::span<const std::byte> page) const {
  const XXH128_hash_t h = XXH3_128bits_withSeed(page.data(), page.size(), file_id_);
  return {h.low64, h.high64};
}

DiskStore::Record DiskStore::make_record(const PageHash& name, std::span<const std::byte> page) {
  Record r{.magic = kRecordMagic, .name = name, .payload = checksum(page), .sequence = next_sequence_++};
  r.check = XXH3_64bits_withSeed(&r, offsetof(Record, check), file_id_);
  return r;
}

bool DiskStore::whole(const Record& r) const {
  return r.magic == kRecordMagic && r.check == XXH3_64bits_withSeed(&r, offsetof(Record, check), file_id_);
}

int DiskStore::scan(std::vector<FoundPage>& found, int32_t& num_torn) {
  found.clear();
  num_torn = 0;
  std::vector<Record> records(segment_slots_);
  for (int32_t first = 0; first < num_slots_; first += segment_slots_) {
    if (const int error = read_fully(*file_, std::as_writable_bytes(std::span(records)), record_at(first))) return error;
    for (int32_t i = 0; i < segment_slots_; ++i) {
      const Record& r = records[i];
      if (whole(r)) {
        found.push_back({.slot = first + i, .name = r.name, .sequence = r.sequence});
      } else {
        num_torn += r.magic != 0 || r.check != 0;
      }
    }
  }
  std::sort(found.begin(), found.end(), [](auto& a, auto& b) { return a.sequence < b.sequence; });
  struct Hash {
    size_t operator()(const PageHash& h) const { return h.low; }
  };
  std::unordered_map<PageHash, uint64_t, Hash> latest;
  for (const FoundPage& page : found) latest[page.name] = page.sequence;
  std::erase_if(found, [&](const FoundPage& page) { return latest[page.name] != page.sequence; });
  if (!found.empty()) next_sequence_ = found.back().sequence + 1;
  return 0;
}

int DiskStore::grow() {
  if (num_slots_ >= max_slots_) return -EFBIG;
  const int32_t segments = num_slots_ / segment_slots_ + 1;
  if (const int error = file_->grow(segment_at(segments))) return error;
  num_slots_ = segments * segment_slots_;
  return 0;
}

int DiskStore::write(int32_t first, std::span<const PageHash> names, std::span<const std::byte> images) {
  const auto count = static_cast<int32_t>(names.size());
  TS_CHECK(count > 0 && first >= 0 && first + count <= num_slots_);
  TS_CHECK(first / segment_slots_ == (first + count - 1) / segment_slots_, "a run of slots crosses a segment");
  TS_CHECK(static_cast<int64_t>(images.size()) >= count * slot_bytes_);
  if (const int error = write_fully(*file_, images.first(count * slot_bytes_), slot_at(first))) return error;
  std::array<Record, 64> records;
  for (int32_t i = 0; i < count; ++i)
    records[i] = make_record(names[i], images.subspan(i * slot_bytes_, page_bytes_));
  return write_fully(*file_, std::as_bytes(std::span(records)).first(count * sizeof(Record)), record_at(first));
}

int DiskStore::read(int32_t first, std::span<const PageHash> names, std::span<std::byte> images,
                    std::span<uint8_t> ok) {
  const auto count = static_cast<int32_t>(names.size());
  TS_CHECK(count > 0 && first >= 0 && first + count <= num_slots_);
  TS_CHECK(first / segment_slots_ == (first + count - 1) / segment_slots_, "a run of slots crosses a segment");
  std::array<Record, 64> records;
  const auto record_bytes = std::as_writable_bytes(std::span(records)).first(count * sizeof(Record));
  if (const int error = read_fully(*file_, record_bytes, record_at(first))) return error;
  if (const int error = read_fully(*file_, images.first(count * slot_bytes_), slot_at(first))) return error;
  for (int32_t i = 0; i < count; ++i)
    ok[i] = whole(records[i]) && records[i].name == names[i] &&
            records[i].payload == checksum(images.subspan(i * slot_bytes_, page_bytes_));
  return 0;
}

int DiskStore::erase(int32_t slot) {
  const Record empty{};
  return write_fully(*file_, std::as_bytes(std::span(&empty, 1)), record_at(slot));
}

}  // namespace tinyserve
