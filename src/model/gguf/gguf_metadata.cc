#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "model/gguf/gguf_file.h"
#include "model/in_quotes.h"

namespace tinyserve {
namespace {

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool is_integer(GgufType type) {
  switch (type) {
    case GgufType::kFloat32:
    case GgufType::kFloat64:
    case GgufType::kBool:
    case GgufType::kString:
    case GgufType::kArray:
      return false;
    default:
      return true;
  }
}

std::string described(const GgufValue& value) {
  if (value.type != GgufType::kArray) return fmt::format("of type {}", gguf_type_name(value.type));
  return fmt::format("an array of {}", gguf_type_name(value.element));
}

}  // namespace

std::string_view gguf_type_name(GgufType type) {
  constexpr std::string_view kNames[] = {"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                         "bool",  "string", "array",  "uint64", "int64",  "float64"};
  return kNames[static_cast<size_t>(type)];
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

const GgufValue& GgufMetadata::require(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) fail(key, "is missing");
  return *value;
}

const GgufValue& GgufMetadata::require_array(std::string_view key) const {
  const GgufValue& value = require(key);
  if (value.type != GgufType::kArray) fail(key, fmt::format("must be an array, but is {}", described(value)));
  return value;
}

int64_t GgufMetadata::to_integer(std::string_view key, GgufType type, const std::byte* p, int64_t min,
                                 int64_t max) const {
  int64_t number = 0;
  switch (type) {
    case GgufType::kUint8:
      number = load<uint8_t>(p);
      break;
    case GgufType::kInt8:
      number = load<int8_t>(p);
      break;
    case GgufType::kUint16:
      number = load<uint16_t>(p);
      break;
    case GgufType::kInt16:
      number = load<int16_t>(p);
      break;
    case GgufType::kUint32:
      number = load<uint32_t>(p);
      break;
    case GgufType::kInt32:
      number = load<int32_t>(p);
      break;
    case GgufType::kInt64:
      number = load<int64_t>(p);
      break;
    case GgufType::kUint64:
      if (const auto large = load<uint64_t>(p); large > static_cast<uint64_t>(INT64_MAX))
        fail(key, fmt::format("must be from {} to {}, but is {}", min, max, large));
      number = load<int64_t>(p);
      break;
    default:
      fail(key, fmt::format("must be a whole number, but is of type {}", gguf_type_name(type)));
  }
  if (number < min || number > max) fail(key, fmt::format("must be from {} to {}, but is {}", min, max, number));
  return number;
}

int64_t GgufMetadata::get_integer(std::string_view key, int64_t min, int64_t max) const {
  const GgufValue& value = require(key);
  return to_integer(key, value.type, value.bytes.data(), min, max);
}
int64_t GgufMetadata::get_integer(std::string_view key, int64_t min, int64_t max, int64_t fallback) const {
  return has(key) ? get_integer(key, min, max) : fallback;
}

double GgufMetadata::get_number(std::string_view key, double min, double max) const {
  const GgufValue& value = require(key);
  double number = 0;
  if (value.type == GgufType::kFloat32)
    number = load<float>(value.bytes.data());
  else if (value.type == GgufType::kFloat64)
    number = load<double>(value.bytes.data());
  else if (is_integer(value.type))
    number = static_cast<double>(to_integer(key, value.type, value.bytes.data(), INT64_MIN, INT64_MAX));
  else
    fail(key, fmt::format("must be a number, but is {}", described(value)));
  if (!(number >= min && number <= max)) fail(key, fmt::format("must be from {} to {}, but is {}", min, max, number));
  return number;
}
double GgufMetadata::get_number(std::string_view key, double min, double max, double fallback) const {
  return has(key) ? get_number(key, min, max) : fallback;
}

bool GgufMetadata::get_flag(std::string_view key, bool fallback) const {
  const GgufValue* value = find(key);
  if (!value) return fallback;
  if (value->type != GgufType::kBool) fail(key, fmt::format("must be true or false, but is {}", described(*value)));
  return std::to_integer<int>(value->bytes[0]) != 0;
}

std::string_view GgufMetadata::get_text(std::string_view key) const {
  const GgufValue& value = require(key);
  if (value.type != GgufType::kString) fail(key, fmt::format("must be a string, but is {}", described(value)));
  return as_text(value.bytes);
}
std::string_view GgufMetadata::get_text(std::string_view key, std::string_view fallback) const {
  return has(key) ? get_text(key) : fallback;
}

std::vector<std::string_view> GgufMetadata::get_texts(std::string_view key) const {
  const GgufValue& value = require_array(key);
  if (value.element != GgufType::kString)
    fail(key, fmt::format("must be an array of strings, but is {}", described(value)));
  std::vector<std::string_view> out;
  out.reserve(static_cast<size_t>(value.count));
  for (size_t at = 0; at < value.bytes.size();) {
    const auto length = static_cast<size_t>(load<uint64_t>(value.bytes.data() + at));  // checked by the parser
    out.push_back(as_text(value.bytes.subspan(at + 8, length)));
    at += 8 + length;
  }
  return out;
}

std::vector<int64_t> GgufMetadata::get_integers(std::string_view key, int64_t min, int64_t max) const {
  const GgufValue& value = require_array(key);
  if (!is_integer(value.element))
    fail(key, fmt::format("must be an array of whole numbers, but is {}", described(value)));
  std::vector<int64_t> out(static_cast<size_t>(value.count));
  const size_t size = out.empty() ? 0 : value.bytes.size() / out.size();
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = to_integer(key, value.element, value.bytes.data() + i * size, min, max);
  return out;
}

std::vector<float> GgufMetadata::get_floats(std::string_view key) const {
  const GgufValue& value = require_array(key);
  if (value.element != GgufType::kFloat32)
    fail(key, fmt::format("must be an array of float32, but is {}", described(value)));
  std::vector<float> out(static_cast<size_t>(value.count));
  if (!out.empty()) std::memcpy(out.data(), value.bytes.data(), value.bytes.size());
  return out;
}

void GgufMetadata::fail(std::string_view key, std::string_view what) const {
  throw InputError(fmt::format("{}: {} {}", file_, in_quotes(key), what));
}

}  // namespace tinyserve
