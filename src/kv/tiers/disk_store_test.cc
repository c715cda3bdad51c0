#include "kv/tiers/disk_store.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "kv/tiers/memory_disk.h"

namespace tinyserve {
namespace {

using testing::MemoryDisk;
using testing::MemoryFile;

constexpr int64_t kPage = 5000;  // two blocks a slot
constexpr HashKey kKey = {11, 22};

PageHash name(uint64_t i) { return {i * 0x9E3779B97F4A7C15u, i}; }

std::vector<std::byte> image(uint64_t i, int64_t stride, int64_t bytes = kPage) {
  std::vector<std::byte> page(stride);
  std::mt19937_64 random(i);
  for (int64_t b = 0; b < bytes; ++b) page[b] = static_cast<std::byte>(random());
  return page;
}

struct Opened {
  std::unique_ptr<DiskStore> store;
  std::vector<FoundPage> found;
  int32_t torn = 0;
  std::string why;
};

Opened open(MemoryDisk& disk, int64_t max_bytes = 4 << 20, PageHash fingerprint = {1, 2}, int64_t page = kPage) {
  Opened o;
  o.store = DiskStore::open(std::make_unique<MemoryFile>(disk), {page, fingerprint, kKey}, max_bytes, o.why);
  if (o.store) {
    EXPECT_EQ(o.store->scan(o.found, o.torn), 0);
  }
  return o;
}

int put(DiskStore& s, int32_t slot, std::vector<uint64_t> ids) {
  std::vector<PageHash> names;
  std::vector<std::byte> images;
  for (uint64_t i : ids) {
    names.push_back(name(i));
    const auto one = image(i, s.slot_bytes());
    images.insert(images.end(), one.begin(), one.end());
  }
  return s.write(slot, names, images);
}

/// Whether the slot has page i; what is read must then be its bytes.
bool has(DiskStore& s, int32_t slot, uint64_t i) {
  std::vector<std::byte> page(s.slot_bytes());
  const PageHash n = name(i);
  uint8_t ok = 0;
  if (s.read(slot, {&n, 1}, page, {&ok, 1}) != 0 || !ok) return false;
  EXPECT_TRUE(std::equal(page.begin(), page.begin() + kPage, image(i, s.slot_bytes()).begin()));
  return true;
}

TEST(DiskStore, FindsItsPagesAgain) {
  MemoryDisk disk;
  {
    Opened o = open(disk);
    ASSERT_TRUE(o.store) << o.why;
    EXPECT_EQ(o.why, "");
    EXPECT_EQ(o.store->slot_bytes(), 8192);
    EXPECT_EQ(o.store->segment_slots(), 64);
    EXPECT_EQ(o.store->num_slots(), 0);
    ASSERT_EQ(o.store->grow(), 0);
    ASSERT_EQ(put(*o.store, 3, {7, 8, 9}), 0);
    ASSERT_EQ(put(*o.store, 63, {10}), 0);
    ASSERT_EQ(put(*o.store, 4, {11}), 0);  // in place of 8
  }
  Opened o = open(disk);
  ASSERT_TRUE(o.store);
  EXPECT_EQ(o.store->hash_key(), kKey);
  ASSERT_EQ(o.found.size(), 4u);
  std::map<int32_t, PageHash> at;
  for (const FoundPage& p : o.found) at[p.slot] = p.name;
  EXPECT_TRUE(at[3] == name(7) && at[4] == name(11) && at[5] == name(9) && at[63] == name(10));
  EXPECT_EQ(o.found.back().slot, 4) << "by age";
  EXPECT_TRUE(has(*o.store, 3, 7));
  EXPECT_TRUE(has(*o.store, 4, 11));
  EXPECT_FALSE(has(*o.store, 4, 8));
  ASSERT_EQ(o.store->erase(3), 0);
  EXPECT_FALSE(has(*o.store, 3, 7));
  EXPECT_EQ(open(disk).found.size(), 3u);
}

TEST(DiskStore, TheHashKeyIsTheFilesOwn) {
  MemoryDisk disk;
  open(disk);
  std::string why;
  const auto again = DiskStore::open(std::make_unique<MemoryFile>(disk), {kPage, {1, 2}, {5, 6}}, 4 << 20, why);
  EXPECT_EQ(again->hash_key(), kKey);
}

TEST(DiskStore, GrowsToItsLimitAndIsCutToASmallerOne) {
  MemoryDisk disk;
  const int64_t segment = 4096 + 64 * 8192;
  EXPECT_EQ(DiskStore::min_bytes(kPage), 4096 + segment);
  {
    Opened o = open(disk, 4096 + 2 * segment + 100);
    EXPECT_EQ(o.store->max_slots(), 128);
    EXPECT_EQ(o.store->grow(), 0);
    EXPECT_EQ(o.store->grow(), 0);
    EXPECT_EQ(o.store->grow(), -EFBIG);
    EXPECT_EQ(disk.bytes.size(), static_cast<size_t>(4096 + 2 * segment));
    put(*o.store, 0, {1});
    put(*o.store, 64, {2});
  }
  Opened o = open(disk, 4096 + segment);
  EXPECT_EQ(o.store->max_slots(), 64);
  ASSERT_EQ(o.found.size(), 1u);
  EXPECT_TRUE(has(*o.store, 0, 1));
  EXPECT_EQ(disk.bytes.size(), static_cast<size_t>(4096 + segment));
}

TEST(DiskStore, AnotherModelsFileIsStartedAnew) {
  MemoryDisk disk;
  {
    Opened o = open(disk);
    o.store->grow();
    put(*o.store, 0, {1});
  }
  Opened other = open(disk, 4 << 20, {1, 3});
  ASSERT_TRUE(other.store);
  EXPECT_NE(other.why.find("another model"), std::string::npos);
  EXPECT_TRUE(other.found.empty());
  EXPECT_EQ(other.store->grow(), 0);
  std::vector<FoundPage> found;
  EXPECT_EQ(other.store->scan(found, other.torn), 0);
  EXPECT_TRUE(found.empty()) << "nothing of the old file fits the new one's seed";
  other.store.reset();
  EXPECT_NE(open(disk, 4 << 20, {1, 2}).why, "");
}

TEST(DiskStore, AFileThatIsNotOursIsLeftAlone) {
  MemoryDisk disk;
  const std::string text(10000, 'x');
  disk.bytes.assign(reinterpret_cast<const std::byte*>(text.data()), reinterpret_cast<const std::byte*>(text.data()) + text.size());
  const auto before = disk.bytes;
  Opened o = open(disk);
  EXPECT_FALSE(o.store);
  EXPECT_NE(o.why.find("not a file of this program"), std::string::npos);
  EXPECT_EQ(disk.bytes, before);
  disk.bytes.assign(100000, std::byte{0});  // a disk image may begin with zeros
  EXPECT_FALSE(open(disk).store);
  disk.bytes.assign(3, std::byte{'T'});
  EXPECT_FALSE(open(disk).store);
}

TEST(DiskStore, ADamagedHeaderStartsAnew) {
  for (size_t at : {9u, 20u, 30u, 50u, 70u}) {
    MemoryDisk disk;
    open(disk).store->grow();
    disk.bytes[at] ^= std::byte{1};
    Opened o = open(disk);
    ASSERT_TRUE(o.store) << at;
    EXPECT_NE(o.why, "") << at;
    EXPECT_EQ(o.store->num_slots(), 0);
  }
  for (int64_t length : {0, 4, 50, 4095}) {
    MemoryDisk disk;
    open(disk);
    disk.bytes.resize(length);
    EXPECT_TRUE(open(disk).store) << length;
  }
}

TEST(DiskStore, BitFlipsAreFound) {
  MemoryDisk disk;
  {
    Opened o = open(disk);
    o.store->grow();
    put(*o.store, 0, {1, 2, 3});
  }
  disk.bytes[4096 + 64 + 20] ^= std::byte{4};                       // record of slot 1
  disk.bytes[4096 + 4096 + 2 * 8192 + kPage - 1] ^= std::byte{16};  // last byte of slot 2's page
  Opened o = open(disk);
  EXPECT_EQ(o.torn, 1);
  EXPECT_EQ(o.found.size(), 2u);
  EXPECT_TRUE(has(*o.store, 0, 1));
  EXPECT_FALSE(has(*o.store, 1, 2));
  EXPECT_FALSE(has(*o.store, 2, 3));
}

TEST(DiskStore, ErrorsComeBackAsSuch) {
  MemoryDisk disk;
  Opened o = open(disk);
  disk.capacity = 5000;
  EXPECT_EQ(o.store->grow(), -ENOSPC);
  EXPECT_EQ(o.store->num_slots(), 0);
  disk.capacity = 1 << 30;
  ASSERT_EQ(o.store->grow(), 0);
  disk.write_error = EIO;
  EXPECT_EQ(put(*o.store, 0, {1}), -EIO);
  disk.write_error = 0;
  EXPECT_FALSE(has(*o.store, 0, 1));
  disk.most_per_call = 100;  // short reads and writes are carried on
  EXPECT_EQ(put(*o.store, 0, {1, 2}), 0);
  EXPECT_TRUE(has(*o.store, 1, 2));
  disk.read_error = EIO;
  EXPECT_FALSE(has(*o.store, 1, 2));
  std::string why;
  EXPECT_FALSE(DiskStore::open(std::make_unique<MemoryFile>(disk), {kPage, {1, 2}, kKey}, 4 << 20, why));
  EXPECT_EQ(why, std::strerror(EIO));
}

/// The process dies after any number of bytes: what a later one finds are pages that were written, whole, or nothing.
RC_GTEST_PROP(DiskStoreProperty, DyingAtAnyByteLosesPagesAndNeverMixesThem, ()) {
  std::mt19937 random(*rc::gen::arbitrary<uint32_t>());
  MemoryDisk disk;
  uint64_t next = 1;
  for (int life = 0; life < 4; ++life) {
    disk.dies_after = int64_t{1} << 40;
    Opened o = open(disk);
    RC_ASSERT(o.store);
    for (const FoundPage& page : o.found) {
      std::vector<std::byte> bytes(o.store->slot_bytes());
      uint8_t ok = 0;
      RC_ASSERT(o.store->read(page.slot, {&page.name, 1}, bytes, {&ok, 1}) == 0);
      if (ok) RC_ASSERT(std::equal(bytes.begin(), bytes.begin() + kPage, image(page.name.high, o.store->slot_bytes()).begin()));
    }
    disk.dies_after = random() % 60000;
    if (o.store->num_slots() == 0) o.store->grow();
    while (disk.dies_after > 0) {
      if (o.store->num_slots() == 0) break;
      const int32_t count = 1 + random() % 3, slot = random() % 8;
      std::vector<uint64_t> ids;
      for (int32_t i = 0; i < count; ++i) ids.push_back(next++);
      put(*o.store, slot, ids);
    }
  }
}

TEST(DiskFile, IsPrivateLockedAndRegular) {
  const auto folder = std::filesystem::temp_directory_path() / ("tinyserve-disk-file-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const auto path = folder / "pages";
  std::string why;
  {
    std::ofstream(path).close();
    std::filesystem::permissions(path, std::filesystem::perms(0644));
    const auto file = open_disk_file(path, why);
    ASSERT_TRUE(file) << why;
    struct stat s;
    ASSERT_EQ(::stat(path.c_str(), &s), 0);
    EXPECT_EQ(s.st_mode & 0777, 0600u);
    EXPECT_FALSE(open_disk_file(path, why));
    EXPECT_EQ(why, "another process is using it");
    EXPECT_EQ(file->grow(10000), 0);
    EXPECT_EQ(file->size(), 10000);
    EXPECT_EQ(file->grow(5000), 0);
    EXPECT_EQ(file->size(), 10000);
    EXPECT_EQ(file->truncate(5000), 0);
    char text[4] = "abc";
    EXPECT_EQ(file->write(text, 4, 4998), 4);
    EXPECT_EQ(file->read(text, 4, 5000), 2);
  }
  EXPECT_TRUE(open_disk_file(path, why)) << "the lock goes with the file";
  std::filesystem::create_symlink(path, folder / "link");
  EXPECT_FALSE(open_disk_file(folder / "link", why));
  EXPECT_EQ(why, "it is a symbolic link");
  EXPECT_FALSE(open_disk_file(folder, why));
  EXPECT_FALSE(open_disk_file("/dev/null", why));
  EXPECT_EQ(why, "it is no regular file");
  EXPECT_FALSE(open_disk_file(folder / "no" / "where", why));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace tinyserve
