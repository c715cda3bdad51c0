#include "model/gguf/gguf_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <unordered_set>

#include "base/error.h"
#include "model/in_quotes.h"

namespace tinyserve {
namespace {

static_assert(std::endian::native == std::endian::little, "values are read in place");

struct TensorType {
  uint32_t id;
  std::string_view name;
  int32_t values;  // in a block
  int32_t bytes;   // of a block
  std::optional<DType> dtype = {};
  std::optional<BlockFormat> blocks = {};
};

constexpr TensorType block_type(uint32_t id, BlockFormat format) {
  const BlockLayout layout = block_layout(format);
  return {id, layout.name, layout.values, layout.bytes, {}, format};
}

// ggml.h's ggml_type. Those that are not read are here so that the rest of their file can be checked.
constexpr TensorType kTensorTypes[] = {
    {0, "F32", 1, 4, DType::kF32},
    {1, "F16", 1, 2, DType::kF16},
    block_type(2, BlockFormat::kQ4_0),
    block_type(3, BlockFormat::kQ4_1),
    block_type(6, BlockFormat::kQ5_0),
    block_type(7, BlockFormat::kQ5_1),
    block_type(8, BlockFormat::kQ8_0),
    {9, "Q8_1", 32, 36},
    block_type(10, BlockFormat::kQ2K),
    block_type(11, BlockFormat::kQ3K),
    block_type(12, BlockFormat::kQ4K),
    block_type(13, BlockFormat::kQ5K),
    block_type(14, BlockFormat::kQ6K),
    {15, "Q8_K", 256, 292},
    {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98},
    {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},
    {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136},
    {24, "I8", 1, 1},
    {25, "I16", 1, 2},
    {26, "I32", 1, 4},
    {27, "I64", 1, 8},
    {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2, DType::kBF16},
    {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},
    {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},
    {41, "Q1_0", 128, 18},
};

// Bytes of a value of fixed size; 0 for strings and arrays.
size_t type_bytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

/// Reads front to back. `place` says in messages what is being read.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string_view file) : bytes_(bytes), file_(file) {}

  std::string place = "the header";

  size_t at() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }
  const std::byte* here() const { return bytes_.data() + at_; }

  std::span<const std::byte> take(uint64_t count) {
    if (count > left())
      fail(fmt::format("needs {} bytes at byte {}, but the file has only {} more: it is truncated or damaged", count,
                       at_, left()));
    const auto out = bytes_.subspan(at_, static_cast<size_t>(count));
    at_ += static_cast<size_t>(count);
    return out;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view string() {
    const auto length = number<uint64_t>();
    if (length > left())
      fail(fmt::format("is or holds a string of {} bytes, but the file has only {} more: it is truncated or damaged",
                       length, left()));
    const auto text = take(length);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }
  [[noreturn]] void fail(std::string_view what) const {
    throw InputError(fmt::format("{}: {} {}", file_, place, what));
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view file_;
  size_t at_ = 0;
};

GgufType read_type(Reader& in) {
  const auto id = in.number<uint32_t>();
  if (id > static_cast<uint32_t>(GgufType::kFloat64))
    in.fail(fmt::format("has the type {}, which GGUF does not have", id));
  return static_cast<GgufType>(id);
}

void check_flags(Reader& in, std::span<const std::byte> bytes) {
  for (const std::byte b : bytes)
    if (std::to_integer<int>(b) > 1)
      in.fail(fmt::format("holds the truth value {}; only 0 and 1 are ones", std::to_integer<int>(b)));
}

GgufValue read_value(Reader& in, GgufType type, int depth) {
  GgufValue value{.type = type};
  if (type == GgufType::kString) {
    const std::string_view text = in.string();
    value.bytes = std::as_bytes(std::span(text));
  } else if (type != GgufType::kArray) {
    value.bytes = in.take(type_bytes(type));
    if (type == GgufType::kBool) check_flags(in, value.bytes);
  } else {
    if (depth == kMaxGgufArrayDepth) in.fail(fmt::format("nests arrays more than {} deep", kMaxGgufArrayDepth));
    value.element = read_type(in);
    value.count = in.number<uint64_t>();
    // What an element takes at least: strings begin with 8 bytes of length, arrays with type and count.
    const size_t fixed = type_bytes(value.element);
    const size_t least = fixed ? fixed : value.element == GgufType::kString ? 8 : 12;
    if (value.count > in.left() / least)
      in.fail(fmt::format("claims an array of {} elements, more than the {} bytes that are left of the file can hold",
                          value.count, in.left()));
    const std::byte* begin = in.here();
    if (fixed) {
      const auto elements = in.take(value.count * fixed);
      if (value.element == GgufType::kBool) check_flags(in, elements);
    } else {
      for (uint64_t i = 0; i < value.count; ++i) {
        if (value.element == GgufType::kString)
          in.string();
        else
          read_value(in, GgufType::kArray, depth + 1);
      }
    }
    value.bytes = {begin, in.here()};
  }
  return value;
}

void read_metadata(Reader& in, uint64_t count, GgufMetadata& metadata) {
  for (uint64_t i = 0; i < count; ++i) {
    in.place = fmt::format("the name of metadata key {}", i);
    const std::string_view key = in.string();
    if (key.empty() || key.size() > kMaxGgufName)
      in.fail(fmt::format("has {} bytes; 1 to {} are allowed", key.size(), kMaxGgufName));
    in.place = fmt::format("metadata key {}", in_quotes(key));
    const GgufType type = read_type(in);
    if (!metadata.add(key, read_value(in, type, 0))) in.fail("is there twice");
  }
}

const TensorType& find_type(const Reader& in, uint32_t id) {
  for (const TensorType& type : kTensorTypes)
    if (type.id == id) return type;
  in.fail(fmt::format("has the type {}, which is not known here", id));
}

// Bytes of the data; throws when they do not fit in 63 bits or rows are not whole blocks.
uint64_t data_bytes(const Reader& in, const Shape& shape, const TensorType& type) {
  int64_t count = 1, bytes = 0;
  bool overflow = false;
  // A zero dimension makes the product zero, but only after the others were seen not to overflow: num_elements() of the
  // same shape must be safe in any order.
  for (const int64_t d : shape) overflow |= __builtin_mul_overflow(count, std::max<int64_t>(d, 1), &count);
  const int64_t row = shape.empty() ? 1 : shape.back();
  if (row % type.values != 0)
    in.fail(fmt::format("has rows of {} numbers, which are not whole blocks of {} as {} needs them", row, type.values,
                        type.name));
  overflow |= __builtin_mul_overflow(count / type.values, int64_t{type.bytes}, &bytes);
  if (overflow) in.fail(fmt::format("has the shape {}, more than 63 bits can count the bytes of", shape_string(shape)));
  return num_elements(shape) == 0 ? 0 : static_cast<uint64_t>(bytes);
}

// Offsets are still relative to the data: begin and end are set, but not moved or checked against the file.
GgufTensor read_tensor(Reader& in, uint64_t index, uint32_t alignment) {
  in.place = fmt::format("the name of tensor {}", index);
  GgufTensor tensor;
  tensor.name = in.string();
  if (tensor.name.empty() || tensor.name.size() > kMaxGgufName)
    in.fail(fmt::format("has {} bytes; 1 to {} are allowed", tensor.name.size(), kMaxGgufName));
  in.place = fmt::format("tensor {}", in_quotes(tensor.name));
  const auto rank = in.number<uint32_t>();
  if (rank > kMaxGgufDims) in.fail(fmt::format("has {} dimensions; GGUF has up to {}", rank, kMaxGgufDims));
  for (uint32_t d = 0; d < rank; ++d) {
    const auto size = in.number<uint64_t>();
    if (size > uint64_t{1} << 62) in.fail(fmt::format("has a dimension of {}", size));
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  tensor.type = in.number<uint32_t>();
  const TensorType& type = find_type(in, tensor.type);
  tensor.type_name = type.name;
  tensor.dtype = type.dtype;
  tensor.blocks = type.blocks;
  const auto offset = in.number<uint64_t>();
  if (offset % alignment != 0)
    in.fail(fmt::format("begins at {}, which is no multiple of the alignment of {}", offset, alignment));
  const uint64_t size = data_bytes(in, tensor.shape, type);
  if (offset > SIZE_MAX - size) in.fail(fmt::format("begins at {}, outside the file", offset));
  tensor.begin = static_cast<size_t>(offset);
  tensor.end = static_cast<size_t>(offset + size);
  return tensor;
}

void check_tensors(std::vector<GgufTensor>& tensors, size_t data_begin, size_t file_size, std::string_view file) {
  const size_t available = file_size - data_begin;
  for (const GgufTensor& t : tensors)
    if (t.end > available)
      throw InputError(fmt::format(
          "{}: tensor {} reaches to byte {} of the data, but the file has only {}: it is truncated or damaged; "
          "download it again",
          file, in_quotes(t.name), t.end, available));
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(tensors[a].begin, tensors[a].end) < std::pair(tensors[b].begin, tensors[b].end);
  });
  size_t at = 0;
  const GgufTensor* previous = nullptr;
  for (const size_t i : order) {
    const GgufTensor& t = tensors[i];
    if (t.begin == t.end) continue;  // no bytes, so they overlap nothing
    if (t.begin < at)
      throw InputError(
          fmt::format("{}: tensors {} and {} overlap", file, in_quotes(previous->name), in_quotes(t.name)));
    at = t.end;
    previous = &t;
  }
  std::unordered_set<std::string_view> names;
  for (GgufTensor& t : tensors) {
    if (!names.insert(t.name).second)
      throw InputError(fmt::format("{}: tensor {} is there twice", file, in_quotes(t.name)));
    t.begin += data_begin;
    t.end += data_begin;
  }
}

void read_version(Reader& in) {
  const std::span<const std::byte> magic = in.take(4);
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) in.fail("does not begin with GGUF: this is no GGUF file");
  const auto version = in.number<uint32_t>();
  if (version == 2 || version == 3) return;
  if ((version & 0xffffu) == 0) in.fail("is of a big-endian GGUF file, which is not read; take the little-endian one");
  in.fail(fmt::format("says GGUF version {}; 2 and 3 are read", version));
}

}  // namespace

GgufFile parse_gguf(std::span<const std::byte> bytes, std::string_view file) {
  Reader in(bytes, file);
  read_version(in);
  const auto num_tensors = in.number<uint64_t>(), num_keys = in.number<uint64_t>();
  // The least a key takes: a name of one byte, a type, and one byte of value; a tensor: name, rank, type and offset.
  if (num_keys > kMaxGgufKeys || num_keys > in.left() / 14)
    in.fail(fmt::format("claims {} metadata keys; this file can have at most {}", num_keys,
                        std::min(kMaxGgufKeys, uint64_t{in.left() / 14})));
  if (num_tensors > kMaxGgufTensors || num_tensors > in.left() / 25)
    in.fail(fmt::format("claims {} tensors; this file can have at most {}", num_tensors,
                        std::min(kMaxGgufTensors, uint64_t{in.left() / 25})));
  GgufFile out{.metadata = GgufMetadata(std::string(file)), .tensors = {}};
  read_metadata(in, num_keys, out.metadata);
  const auto alignment = static_cast<uint32_t>(out.metadata.get_integer("general.alignment", 1, kMaxGgufAlignment, 32));
  if (!std::has_single_bit(alignment))
    out.metadata.fail("general.alignment", fmt::format("is {}, which is no power of two", alignment));
  out.tensors.reserve(static_cast<size_t>(num_tensors));
  for (uint64_t i = 0; i < num_tensors; ++i) out.tensors.push_back(read_tensor(in, i, alignment));
  // A file without tensors may end before the padding.
  const size_t data_begin = std::min((in.at() + alignment - 1) / alignment * alignment, bytes.size());
  check_tensors(out.tensors, data_begin, bytes.size(), file);
  return out;
}

}  // namespace tinyserve
