#pragma once
// The few calls the disk tier makes. Behind an interface so that tests can put a full disk, short writes and I/O errors
// behind them.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace tinyserve {

/// A file that one process has to itself. Offsets and sizes in bytes; errors are -errno.
class DiskFile {
 public:
  virtual ~DiskFile() = default;
  /// Bytes read, fewer than asked for at the end of the file, or -errno.
  virtual int64_t read(void* to, size_t size, int64_t offset) = 0;
  /// Bytes written, maybe fewer than asked for, or -errno.
  virtual int64_t write(const void* from, size_t size, int64_t offset) = 0;
  /// Makes the file `size` bytes long, with room on the disk for all of them where the file system can promise that. 0 or
  /// -errno.
  virtual int grow(int64_t size) = 0;
  /// Cuts the file to `size` bytes. 0 or -errno.
  virtual int truncate(int64_t size) = 0;
  /// Its length, or -errno.
  virtual int64_t size() = 0;
};

/// Opens or makes the file, mode 0600, and locks it until it is closed (or the process ends, however it ends). Null when
/// that cannot be; `why` then says what is the matter. A file that is another user's, or no regular file, is refused:
/// whoever may write it could put his K/V into our answers.
std::unique_ptr<DiskFile> open_disk_file(const std::filesystem::path& path, std::string& why);

/// All of it: 0, or -errno (-EIO at the end of the file, -ENOSPC when nothing more is taken).
int read_fully(DiskFile& file, std::span<std::byte> to, int64_t offset);
int write_fully(DiskFile& file, std::span<const std::byte> from, int64_t offset);

}  // namespace tinyserve
