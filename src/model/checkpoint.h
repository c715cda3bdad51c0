#pragma once
// The tensors of a model: of a folder with model.safetensors, or model.safetensors.index.json and the shards it names; or
// of a GGUF file, by the names that a folder would have. Files are mapped, never read whole.

#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/mapped_file.h"
#include "model/gguf/gguf_model.h"
#include "model/safetensors.h"

namespace tinyserve {

class Checkpoint {
 public:
  /// Maps the files and checks their headers. Throws InputError naming the file, and the tensor where one is at fault.
  explicit Checkpoint(const std::filesystem::path& folder_or_gguf);

  /// Whether it is a GGUF file: those have Gemma's norm weights with the 1 added, and every matrix as [out, in].
  bool is_gguf() const { return gguf_ != nullptr; }
  bool has(const std::string& name) const { return tensors_.contains(name); }
  /// The tensor `name`, which must have exactly `shape` and be F32, F16 or BF16; the view lives as long as the
  /// checkpoint, or, of a quantised tensor of a GGUF file, until it is released: then it is F32 in memory of its own.
  /// Throws InputError naming tensor and file when it is missing, has another shape or dtype.
  TensorView tensor(const std::string& name, const Shape& shape);
  /// Whether `name` is there and quantised.
  bool is_quantised(const std::string& name) const;
  /// The tensor `name` as tensor() gives it, but a quantised one in its blocks: in the file, where they stay readable as
  /// long as the checkpoint lives, or until it is released, where the file has rows in another order.
  TensorView stored(const std::string& name, const Shape& shape);
  /// stored() for a table that is read as long as the checkpoint lives, or, to `dtype` (F32 or BF16) when it is quantised.
  TensorView table(const std::string& name, const Shape& shape, DType dtype);
  /// Drops the tensor's pages from resident memory; a later read brings back what it touches. What tensor() made of a
  /// quantised one is gone.
  void release(const std::string& name);
  void release_all() const;

  /// Names that tensor() was never asked for, sorted.
  std::vector<std::string> unread() const;
  /// "model-00002-of-00003.safetensors", where `name` lies, with its folder.
  std::string file_of(const std::string& name) const;
  /// Bytes of one tensor in its file.
  size_t stored_bytes(const std::string& name) const {
    const Located& located = tensors_.at(name);
    return located.end - located.begin;
  }
  /// Bytes of all tensors.
  size_t size_bytes() const { return size_bytes_; }

 private:
  struct Located {
    size_t file = 0;
    std::string dtype;  // as the file names it
    Shape shape;
    size_t begin = 0, end = 0;  // in the file
    const GgufTensor* gguf = nullptr;
    bool read = false;
    AlignedBuffer converted, reordered, table;  // see tensor(), stored() and table()
  };
  void add_file(const std::filesystem::path& path, const std::unordered_map<std::string, std::string>* index);
  void add_gguf(const std::filesystem::path& path);
  Located& locate(const std::string& name, const Shape& shape);
  const MappedFile& file(const Located& located) const {
    return gguf_ ? gguf_->mapped(located.file) : files_[located.file];
  }

  std::filesystem::path folder_;
  std::vector<MappedFile> files_;  // of a folder
  std::unique_ptr<GgufModel> gguf_;
  std::unordered_map<std::string, Located> tensors_;
  size_t size_bytes_ = 0;
};

}  // namespace tinyserve
