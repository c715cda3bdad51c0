#pragma once
// A model in GGUF: one file, or the shards NAME-00001-of-00003.gguf, ... of which the first carries the metadata. Files
// are mapped, never read whole.

#include <deque>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "model/gguf/gguf_file.h"

namespace tinyserve {

constexpr int64_t kMaxGgufShards = 10'000;

class GgufModel {
 public:
  /// `path`: the file, or the first shard; its siblings are found by their names. Throws InputError naming the file,
  /// and the key, tensor or shard at fault.
  explicit GgufModel(const std::filesystem::path& path);

  /// Of the first file.
  const GgufMetadata& metadata() const { return files_.front().metadata; }
  size_t num_files() const { return files_.size(); }
  const MappedFile& mapped(size_t file) const { return mapped_[file]; }
  const std::vector<GgufTensor>& tensors(size_t file) const { return files_[file].tensors; }

 private:
  void add_file(const std::filesystem::path& path);

  std::deque<MappedFile> mapped_;  // files_ points into their bytes
  std::vector<GgufFile> files_;
};

/// Whether `path` names a file (not a folder) that begins with GGUF's magic bytes or ends in .gguf.
bool is_gguf(const std::filesystem::path& path);

}  // namespace tinyserve
