#pragma once
// One GGUF file, versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): a header, metadata (key,
// type, value), a directory of tensors, and their data, each at a multiple of general.alignment. Parsed from a span of
// bytes, so that hostile files can be tested without a disk. Nothing is copied but keys' and tensors' places, and
// nothing is allocated by a count the file claims before that count was compared with the bytes there are.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tensor/block_format.h"
#include "tensor/tensor_view.h"

namespace tinyserve {

constexpr uint64_t kMaxGgufKeys = 65'536;
constexpr uint64_t kMaxGgufTensors = 262'144;
constexpr uint64_t kMaxGgufName = 65'535;  ///< bytes of a key or of a tensor's name; the format's limit on keys
constexpr uint32_t kMaxGgufDims = 4;       ///< the format's limit
constexpr uint32_t kMaxGgufAlignment = 1 << 20;
constexpr int kMaxGgufArrayDepth = 4;  ///< of arrays in arrays

/// As numbered in files.
enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};
std::string_view gguf_type_name(GgufType type);  ///< "uint8", "string", ...

/// A value of the metadata, in the file's bytes, which were checked: every string and array ends inside the file and
/// every truth value is 0 or 1.
struct GgufValue {
  GgufType type = GgufType::kUint8;
  GgufType element = GgufType::kUint8;  ///< of an array
  uint64_t count = 1;                   ///< of an array's elements
  std::span<const std::byte> bytes;     ///< of the value; of an array: of its elements; of a string: of its text
};

/// Numbers are little-endian and unaligned in `bytes`. Every get_... throws InputError "<file>: <key> ..." when the key
/// is missing (unless there is a fallback), of another type, or out of bounds.
class GgufMetadata {
 public:
  explicit GgufMetadata(std::string file) : file_(std::move(file)) {}

  const std::string& file() const { return file_; }
  size_t size() const { return values_.size(); }
  bool has(std::string_view key) const { return find(key) != nullptr; }
  /// Null when there is no such key.
  const GgufValue* find(std::string_view key) const;

  /// A whole number of any width.
  int64_t get_integer(std::string_view key, int64_t min, int64_t max) const;
  int64_t get_integer(std::string_view key, int64_t min, int64_t max, int64_t fallback) const;
  /// A number of any type but bool, finite.
  double get_number(std::string_view key, double min, double max) const;
  double get_number(std::string_view key, double min, double max, double fallback) const;
  bool get_flag(std::string_view key, bool fallback) const;
  /// The view lives as long as the file's bytes.
  std::string_view get_text(std::string_view key) const;
  std::string_view get_text(std::string_view key, std::string_view fallback) const;
  /// Arrays. The views live as long as the file's bytes.
  std::vector<std::string_view> get_texts(std::string_view key) const;
  std::vector<int64_t> get_integers(std::string_view key, int64_t min, int64_t max) const;
  std::vector<float> get_floats(std::string_view key) const;

  /// Throws InputError: "<file>: <key> <what>".
  [[noreturn]] void fail(std::string_view key, std::string_view what) const;

  /// For the parser. False when the key is there already.
  bool add(std::string_view key, const GgufValue& value) { return values_.emplace(key, value).second; }

 private:
  const GgufValue& require(std::string_view key) const;
  const GgufValue& require_array(std::string_view key) const;
  int64_t to_integer(std::string_view key, GgufType type, const std::byte* p, int64_t min, int64_t max) const;

  std::string file_;
  std::unordered_map<std::string_view, GgufValue> values_;  // keys in the file's bytes
};

/// One tensor as the directory describes it; begin <= end <= file size.
struct GgufTensor {
  std::string_view name;              ///< in the file's bytes
  uint32_t type = 0;                  ///< as numbered in files
  std::string_view type_name;         ///< "F32", "Q4_K", "IQ4_XS", ...
  std::optional<DType> dtype;         ///< of a tensor of plain numbers that TinyServe computes with
  std::optional<BlockFormat> blocks;  ///< of a quantised tensor that it reads; neither: it knows only the size
  Shape shape;       ///< rows last dimension first, as everywhere here: [out, in] (files say [in, out])
  size_t begin = 0;  ///< first byte, from the start of the file
  size_t end = 0;    ///< one past the last byte
};

struct GgufFile {
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  ///< in the directory's order
};

/// Reads and checks metadata and directory of a whole file: keys and tensor names are unique, every tensor has a known
/// type, whole blocks to a row, and lies inside the file, aligned, without overlapping another. The result points into
/// `bytes`. Throws InputError naming `file`, and the key or tensor at fault.
GgufFile parse_gguf(std::span<const std::byte> bytes, std::string_view file);

}  // namespace tinyserve
