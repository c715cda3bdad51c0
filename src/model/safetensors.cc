#include "model/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <unordered_set>

#include "base/error.h"
#include "base/json.h"
#include "model/in_quotes.h"

namespace tinyserve {
namespace {

struct DTypeBits {
  std::string_view name;
  int bits;
};
constexpr DTypeBits kKnownDTypes[] = {
    {"F64", 64},    {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"I64", 64}, {"I32", 32}, {"I16", 16},
    {"I8", 8},      {"U64", 64},    {"U32", 32},    {"U16", 16},    {"U8", 8},   {"BOOL", 8}, {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},   {"C64", 64},
};

/// Builds entries straight from the parser's events: no document tree (a header may have 100 MB), no recursion, and
/// duplicate keys are seen, which a tree would hide.
class HeaderHandler : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderHandler(std::string_view file) : file_(file) {}

  std::vector<SafetensorsEntry> take() { return std::move(entries_); }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kNames;
    } else if (place_ == Place::kNames && metadata_next_) {
      place_ = Place::kMetadata;
    } else if (place_ == Place::kNames) {
      place_ = Place::kFields;
      entries_.push_back({.name = name_});
      seen_ = {};
      num_offsets_ = 0;
    } else {
      unexpected("an object");
    }
    return true;
  }
  bool end_object() override {
    if (place_ == Place::kFields) {
      for (size_t f = 0; f < seen_.size(); ++f)
        if (!seen_[f]) fail(fmt::format("has no '{}'", kFields[f]));
      if (num_offsets_ != 2) fail("needs two data_offsets");
    }
    place_ = place_ == Place::kNames ? Place::kEnd : Place::kNames;
    return true;
  }
  bool key(string_t& key) override {
    if (place_ == Place::kNames) {
      metadata_next_ = key == "__metadata__";
      name_ = key;
      if (!names_.insert(key).second) fail("is listed twice");
    } else if (place_ == Place::kFields) {
      const auto field = std::find(kFields.begin(), kFields.end(), key);
      if (field == kFields.end()) fail(fmt::format("has an unknown field {}", in_quotes(key)));
      field_ = static_cast<size_t>(field - kFields.begin());
      if (seen_[field_]) fail(fmt::format("has '{}' twice", key));
      seen_[field_] = true;
    }
    return true;
  }
  bool start_array(size_t) override {
    if (place_ == Place::kFields && field_ == kShape)
      place_ = Place::kShapeArray;
    else if (place_ == Place::kFields && field_ == kOffsets)
      place_ = Place::kOffsetArray;
    else
      unexpected("an array");
    return true;
  }
  bool end_array() override {
    place_ = Place::kFields;
    return true;
  }
  bool string(string_t& value) override {
    if (place_ == Place::kFields && field_ == kDType)
      entries_.back().dtype = value;
    else if (place_ != Place::kMetadata)
      unexpected("a string");
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShapeArray) {
      Shape& shape = entries_.back().shape;
      if (shape.size() == kMaxTensorRank) fail(fmt::format("has more than {} dimensions", kMaxTensorRank));
      if (value > uint64_t{1} << 62) fail(fmt::format("has a dimension of {}", value));
      shape.push_back(static_cast<int64_t>(value));
    } else if (place_ == Place::kOffsetArray) {
      if (num_offsets_ == 2) fail("needs two data_offsets, has more");
      (num_offsets_++ == 0 ? entries_.back().begin : entries_.back().end) = value;
    } else {
      unexpected("a number");
    }
    return true;
  }
  bool number_integer(number_integer_t value) override {
    if (place_ == Place::kShapeArray) fail(fmt::format("has a negative dimension ({})", value));
    if (place_ == Place::kOffsetArray) fail(fmt::format("has a negative data offset ({})", value));
    unexpected("a number");
  }
  bool number_float(number_float_t, const string_t& text) override {
    if (place_ == Place::kShapeArray || place_ == Place::kOffsetArray)
      fail(fmt::format("has {} where a whole number below 2^64 belongs", in_quotes(text)));
    unexpected("a number");
  }
  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a truth value"); }
  bool binary(binary_t&) override { unexpected("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    throw InputError(fmt::format("{}: the safetensors header is not valid JSON (near its byte {}): {}", file_, position,
                                 in_quotes(error.what())));
  }

 private:
  enum class Place { kStart, kNames, kMetadata, kFields, kShapeArray, kOffsetArray, kEnd };
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};
  static constexpr size_t kDType = 0, kShape = 1, kOffsets = 2;

  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}: tensor {} {}", file_, in_quotes(name_), what));
  }
  [[noreturn]] void unexpected(std::string_view what) const {
    if (place_ == Place::kStart || place_ == Place::kEnd)
      throw InputError(fmt::format("{}: the safetensors header is {}, not an object", file_, what));
    if (place_ == Place::kMetadata)
      throw InputError(fmt::format("{}: __metadata__ holds {} where only strings may be", file_, what));
    fail(fmt::format("has {} in its description where none may be", what));
  }

  std::string_view file_;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_set<std::string> names_;
  Place place_ = Place::kStart;
  bool metadata_next_ = false;
  std::string name_;
  size_t field_ = 0;
  std::array<bool, 3> seen_{};
  int num_offsets_ = 0;
};

std::optional<int> dtype_bits(std::string_view dtype) {
  for (const DTypeBits& known : kKnownDTypes)
    if (known.name == dtype) return known.bits;
  return std::nullopt;
}

// Bytes that shape * dtype take; nothing for a dtype we do not know. Throws when they do not fit in 63 bits.
std::optional<uint64_t> expected_bytes(const SafetensorsEntry& entry, std::string_view file) {
  int64_t count = 1;
  bool overflow = false;
  // A zero dimension makes the product zero, but only after the others were seen not to overflow: num_elements() of
  // the same shape must be safe in any order.
  for (const int64_t d : entry.shape) overflow |= __builtin_mul_overflow(count, std::max<int64_t>(d, 1), &count);
  const std::optional<int> bits = dtype_bits(entry.dtype);
  int64_t total_bits = 0;
  overflow |= __builtin_mul_overflow(count, int64_t{bits.value_or(8)}, &total_bits);
  if (overflow)
    throw InputError(fmt::format("{}: tensor {} has shape {}, more elements than 63 bits can count bytes of", file,
                                 in_quotes(entry.name), shape_string(entry.shape)));
  if (!bits) return std::nullopt;
  if (num_elements(entry.shape) == 0) return 0;
  if (total_bits % 8 != 0)
    throw InputError(fmt::format("{}: tensor {} of shape {} and dtype {} does not end on a whole byte", file,
                                 in_quotes(entry.name), shape_string(entry.shape), entry.dtype));
  return static_cast<uint64_t>(total_bits) / 8;
}

void check_entries(const std::vector<SafetensorsEntry>& entries, uint64_t data_bytes, std::string_view file) {
  for (const SafetensorsEntry& e : entries) {
    if (e.begin > e.end)
      throw InputError(fmt::format("{}: tensor {} ends (byte {}) before it begins (byte {})", file, in_quotes(e.name),
                                   e.end, e.begin));
    if (e.end > data_bytes)
      throw InputError(
          fmt::format("{}: tensor {} reaches to byte {} of the data, but the file has only {}: it is truncated "
                      "or damaged; download it again",
                      file, in_quotes(e.name), e.end, data_bytes));
    const std::optional<uint64_t> expected = expected_bytes(e, file);
    if (expected && *expected != e.end - e.begin)
      throw InputError(
          fmt::format("{}: tensor {} of shape {} and dtype {} takes {} bytes, but its data_offsets span {}", file,
                      in_quotes(e.name), shape_string(e.shape), e.dtype, *expected, e.end - e.begin));
  }
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(entries[a].begin, entries[a].end) < std::pair(entries[b].begin, entries[b].end);
  });
  uint64_t at = 0;
  const SafetensorsEntry* previous = nullptr;
  for (const size_t i : order) {
    const SafetensorsEntry& e = entries[i];
    if (e.begin < at)
      throw InputError(
          fmt::format("{}: tensors {} and {} overlap", file, in_quotes(previous->name), in_quotes(e.name)));
    if (e.begin > at)
      throw InputError(
          fmt::format("{}: {} bytes before tensor {} belong to no tensor", file, e.begin - at, in_quotes(e.name)));
    at = e.end;
    previous = &e;
  }
  if (at != data_bytes)
    throw InputError(fmt::format("{}: {} bytes after the last tensor belong to no tensor", file, data_bytes - at));
}

}  // namespace

std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> bytes, std::string_view file) {
  if (bytes.size() < 8)
    throw InputError(
        fmt::format("{}: {} bytes are too few for a safetensors file; it is empty or truncated", file, bytes.size()));
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | static_cast<uint64_t>(bytes[static_cast<size_t>(i)]);
  if (header_bytes > kMaxSafetensorsHeader)
    throw InputError(fmt::format("{}: the safetensors header claims {} bytes, more than the format's limit of {}", file,
                                 header_bytes, kMaxSafetensorsHeader));
  if (header_bytes > bytes.size() - 8)
    throw InputError(
        fmt::format("{}: the safetensors header claims {} bytes, but the file has only {}: it is truncated "
                    "or damaged",
                    file, header_bytes, bytes.size()));
  const char* header = reinterpret_cast<const char*>(bytes.data()) + 8;
  if (std::memchr(header, 0, header_bytes))  // the JSON parser would take it for the end
    throw InputError(fmt::format("{}: the safetensors header holds a NUL byte", file));
  HeaderHandler handler(file);
  Json::sax_parse(header, header + header_bytes, &handler);
  std::vector<SafetensorsEntry> entries = handler.take();
  check_entries(entries, bytes.size() - 8 - header_bytes, file);
  for (SafetensorsEntry& e : entries) {
    e.begin += 8 + header_bytes;
    e.end += 8 + header_bytes;
  }
  return entries;
}

}  // namespace tinyserve
