#include "replay/line_reader.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace tinyserve::replay {
namespace {

constexpr size_t kFirstBuffer = size_t{64} << 10;

class GzipFile final : public ByteSource {
 public:
  explicit GzipFile(const std::filesystem::path& path) : name_(path.string()) {
    struct stat status;
    if (stat(path.c_str(), &status) != 0) throw InputError(fmt::format("{}: {}", name_, std::strerror(errno)));
    if (S_ISDIR(status.st_mode)) throw InputError(fmt::format("{}: is a folder, not a trace", name_));
    file_ = gzopen(path.c_str(), "rb");
    if (!file_) throw InputError(fmt::format("{}: {}", name_, std::strerror(errno)));
    gzbuffer(file_, 1 << 18);
  }
  ~GzipFile() override { gzclose(file_); }

  size_t read(char* out, size_t size) override {
    const int got = gzread(file_, out, static_cast<unsigned>(std::min(size, size_t{1} << 30)));
    int code = Z_OK;
    const char* why = gzerror(file_, &code);
    if (got < 0 || (got == 0 && code != Z_OK))
      throw InputError(fmt::format("{}: cannot be read: {}", name_, code == Z_ERRNO ? std::strerror(errno) : why));
    return static_cast<size_t>(got);
  }

 private:
  std::string name_;
  gzFile file_ = nullptr;
};

class Bytes final : public ByteSource {
 public:
  explicit Bytes(std::string_view bytes) : left_(bytes) {}
  size_t read(char* out, size_t size) override {
    size = std::min(size, left_.size());
    if (size > 0) std::memcpy(out, left_.data(), size);
    left_.remove_prefix(size);
    return size;
  }

 private:
  std::string_view left_;
};

}  // namespace

std::unique_ptr<ByteSource> open_file(const std::filesystem::path& path) { return std::make_unique<GzipFile>(path); }
std::unique_ptr<ByteSource> open_bytes(std::string_view bytes) { return std::make_unique<Bytes>(bytes); }

LineReader::LineReader(std::unique_ptr<ByteSource> source, std::string name)
    : source_(std::move(source)), name_(std::move(name)), buffer_(kFirstBuffer) {}

bool LineReader::next(std::string_view& line) {
  size_t searched = 0;  // bytes of this line known to hold no end of line
  ++number_;
  while (true) {
    const char* start = buffer_.data() + begin_;
    const void* newline = std::memchr(start + searched, '\n', end_ - begin_ - searched);
    size_t length = newline ? static_cast<size_t>(static_cast<const char*>(newline) - start) : end_ - begin_;
    if (length > kMaxLineBytes)
      throw InputError(fmt::format("{}the line is longer than {} MiB: this is no trace", where(), kMaxLineBytes >> 20));
    size_t got = 0;
    if (!newline) {
      searched = length;
      if (begin_ > 0) {
        std::memmove(buffer_.data(), start, length);
        begin_ = 0;
        end_ = length;
      }
      if (end_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
      got = source_->read(buffer_.data() + end_, buffer_.size() - end_);
      end_ += got;
      if (got > 0) continue;
      if (length == 0) return false;
    }
    line = std::string_view(buffer_.data() + begin_, length);
    begin_ += length + (newline ? 1 : 0);
    had_end_ = newline != nullptr;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    return true;
  }
}

std::string LineReader::where() const { return fmt::format("{}:{}: ", name_, number_); }

}  // namespace tinyserve::replay
