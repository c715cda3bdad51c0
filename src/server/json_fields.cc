#include "server/json_fields.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "server/api_error.h"

namespace tinyserve {
namespace {

constexpr size_t kBriefBytes = 40;
constexpr size_t kMaxMessageBytes = 400;
constexpr size_t kMaxMembers = 1024;  // of one object: looking for doubles takes their square

// Cuts at a character boundary.
std::string shorten(std::string text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  while (max_bytes > 0 && (static_cast<unsigned char>(text[max_bytes]) & 0xC0) == 0x80) --max_bytes;
  text.resize(max_bytes);
  return text + "...";
}

// An upper bound on the values of a document: separators and brackets outside strings.
size_t count_values(std::string_view text) {
  size_t count = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == ',' || c == '[' || c == '{') {
      ++count;
    }
  }
  return count;
}

}  // namespace

std::string brief(const OrderedJson& value) {
  switch (value.type()) {
    case OrderedJson::value_t::array:
      return fmt::format("a list of {}", value.size());
    case OrderedJson::value_t::object:
      return "an object";
    case OrderedJson::value_t::string: {
      const auto& text = value.get_ref<const std::string&>();
      return OrderedJson(shorten(text.substr(0, kBriefBytes + 4), kBriefBytes))
          .dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
    }
    default:
      return value.dump();
  }
}

Fields::Fields(const OrderedJson& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object()) {
    std::string name = path_.empty() ? "" : path_.substr(0, path_.size() - 1);
    const std::string what = name.empty() ? "The request body" : fmt::format("\"{}\"", name);
    throw bad_field(std::move(name), fmt::format("{} must be a JSON object, got {}.", what, brief(object)));
  }
}

const OrderedJson* Fields::find(const char* name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

int64_t checked_integer(const OrderedJson& value, const std::string& path, int64_t min, int64_t max) {
  // An unsigned number beyond int64 and one beyond uint64 (which parses as a float) are out of any range of ours.
  const bool whole = value.is_number_integer();
  const bool fits = whole && !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX});
  if (!fits || value.get<int64_t>() < min || value.get<int64_t>() > max)
    throw bad_field(path,
                    fmt::format("\"{}\" must be an integer from {} to {}, got {}.", path, min, max, brief(value)));
  return value.get<int64_t>();
}

double checked_number(const OrderedJson& value, const std::string& path, double min, double max, bool above_min) {
  const double x = value.is_number() ? value.get<double>() : NAN;
  if (!(above_min ? x > min : x >= min) || !(x <= max))
    throw bad_field(path, fmt::format("\"{}\" must be a number {} {} and at most {}, got {}.", path,
                                      above_min ? "above" : "from", min, max, brief(value)));
  return x;
}

std::optional<int64_t> Fields::integer(const char* name, int64_t min, int64_t max) const {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  return checked_integer(*value, path(name), min, max);
}

std::optional<double> Fields::number(const char* name, double min, double max, bool above_min) const {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  return checked_number(*value, path(name), min, max, above_min);
}

std::optional<bool> Fields::boolean(const char* name) const {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_boolean())
    throw bad_field(path(name), fmt::format("\"{}\" must be true or false, got {}.", path(name), brief(*value)));
  return value->get<bool>();
}

std::optional<std::string> Fields::string(const char* name, size_t max_bytes) const {
  const OrderedJson* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_string())
    throw bad_field(path(name), fmt::format("\"{}\" must be a string, got {}.", path(name), brief(*value)));
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > max_bytes)
    throw bad_field(path(name),
                    fmt::format("\"{}\" has {} bytes; at most {} are taken.", path(name), text.size(), max_bytes));
  return text;
}

OrderedJson parse_body(std::string_view body, size_t max_values) {
  if (const size_t values = count_values(body); values > max_values)
    throw ApiError(400, fmt::format("The request body holds more than {} JSON values.", max_values));
  try {
    OrderedJson json = parse_ordered_json(body, "The request body", {.max_members = kMaxMembers});
    Fields check(json);
    return json;
  } catch (const InputError& e) {
    throw ApiError(400, shorten(e.what(), kMaxMessageBytes), "", "invalid_json");
  }
}

}  // namespace tinyserve
