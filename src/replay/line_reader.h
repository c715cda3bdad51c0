#pragma once
// Lines of text from a file, plain or gzip, of which no more than one line is in memory at a time.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tinyserve::replay {

/// Where bytes come from.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Up to `size` bytes into `out`; 0 at the end. Throws InputError when they cannot be read.
  virtual size_t read(char* out, size_t size) = 0;
};

/// A file; one that begins as gzip does is unpacked. Throws InputError when it cannot be opened.
std::unique_ptr<ByteSource> open_file(const std::filesystem::path& path);
/// Bytes in memory, which outlive the source.
std::unique_ptr<ByteSource> open_bytes(std::string_view bytes);

class LineReader {
 public:
  /// Longer lines are refused before they are in memory.
  static constexpr size_t kMaxLineBytes = size_t{8} << 20;

  /// `name` is for messages.
  LineReader(std::unique_ptr<ByteSource> source, std::string name);

  /// The next line without its end ("\n" or "\r\n"), valid until the next call; false at the end of the file. Throws
  /// InputError for a line of more than kMaxLineBytes.
  bool next(std::string_view& line);
  /// Of the line that next() gave last, from 1.
  int64_t number() const { return number_; }
  /// Whether that line had an end, which the last of a file may lack.
  bool had_end() const { return had_end_; }
  /// "FILE:LINE: ", for messages.
  std::string where() const;

 private:
  std::unique_ptr<ByteSource> source_;
  std::string name_;
  std::vector<char> buffer_;  // [begin_, end_) is read and not given out
  size_t begin_ = 0, end_ = 0;
  int64_t number_ = 0;
  bool had_end_ = true;
};

}  // namespace tinyserve::replay
