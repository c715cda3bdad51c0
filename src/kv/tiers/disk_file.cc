#include "kv/tiers/disk_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tinyserve {
namespace {

class PosixFile final : public DiskFile {
 public:
  explicit PosixFile(int fd) : fd_(fd) {}
  ~PosixFile() override { ::close(fd_); }  // and the lock goes with it

  int64_t read(void* to, size_t size, int64_t offset) override {
    const ssize_t n = ::pread(fd_, to, size, offset);
    return n < 0 ? -errno : n;
  }
  int64_t write(const void* from, size_t size, int64_t offset) override {
    const ssize_t n = ::pwrite(fd_, from, size, offset);
    return n < 0 ? -errno : n;
  }
  int grow(int64_t size) override {
    const int64_t now = this->size();
    if (now < 0) return static_cast<int>(now);
    if (now >= size) return 0;
    if (::fallocate(fd_, 0, now, size - now) == 0) return 0;
    if (errno != EOPNOTSUPP) return -errno;
    return truncate(size);
  }
  int truncate(int64_t size) override { return ::ftruncate(fd_, size) == 0 ? 0 : -errno; }
  int64_t size() override {
    struct stat s;
    return ::fstat(fd_, &s) == 0 ? s.st_size : -errno;
  }

 private:
  int fd_;
};

}  // namespace

std::unique_ptr<DiskFile> open_disk_file(const std::filesystem::path& path, std::string& why) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    why = errno == ELOOP ? "it is a symbolic link" : std::strerror(errno);
    return nullptr;
  }
  auto file = std::make_unique<PosixFile>(fd);
  struct stat s;
  if (::fstat(fd, &s) != 0) {
    why = std::strerror(errno);
  } else if (!S_ISREG(s.st_mode)) {
    why = "it is no regular file";
  } else if (s.st_uid != ::geteuid()) {
    why = "it belongs to another user";
  } else if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    why = errno == EWOULDBLOCK ? "another process is using it" : std::strerror(errno);
  } else if ((s.st_mode & 077) != 0 && ::fchmod(fd, 0600) != 0) {
    why = std::strerror(errno);
  } else {
    return file;
  }
  return nullptr;
}

int read_fully(DiskFile& file, std::span<std::byte> to, int64_t offset) {
  while (!to.empty()) {
    const int64_t n = file.read(to.data(), to.size(), offset);
    if (n == -EINTR) continue;
    if (n < 0) return static_cast<int>(n);
    if (n == 0) return -EIO;
    to = to.subspan(n);
    offset += n;
  }
  return 0;
}

int write_fully(DiskFile& file, std::span<const std::byte> from, int64_t offset) {
  while (!from.empty()) {
    const int64_t n = file.write(from.data(), from.size(), offset);
    if (n == -EINTR) continue;
    if (n < 0) return static_cast<int>(n);
    if (n == 0) return -ENOSPC;
    from = from.subspan(n);
    offset += n;
  }
  return 0;
}

}  // namespace tinyserve
