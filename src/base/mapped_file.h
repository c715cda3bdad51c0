#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace tinyserve {

/// A whole file mapped read-only. Movable; unmaps when destroyed.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws InputError when the file is missing, not a regular file or not readable.
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  /// Tells the kernel that the pages wholly inside [offset, offset + size) will not be needed again (they stay
  /// readable, from disk). Keeps resident memory near the packed weights after loading.
  void release(size_t offset, size_t size) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::filesystem::path path_;
};

/// The whole file as text. Throws InputError when it is missing, unreadable or larger than `max_bytes`.
std::string read_text_file(const std::filesystem::path& path, size_t max_bytes = size_t{256} << 20);

}  // namespace tinyserve
