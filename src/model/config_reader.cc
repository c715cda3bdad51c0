#include "model/config_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/mapped_file.h"
#include "model/in_quotes.h"

namespace tinyserve {
namespace {

constexpr size_t kMaxConfigBytes = size_t{4} << 20;

std::string shown(const Json& value) { return in_quotes(value.dump(-1, ' ', true, Json::error_handler_t::replace)); }

}  // namespace

ConfigReader::ConfigReader(const std::filesystem::path& path) : file_(path.string()) {
  root_ = std::make_shared<const Json>(
      parse_json(read_text_file(path, kMaxConfigBytes), file_, {.max_bytes = kMaxConfigBytes, .max_depth = 32}));
  if (!root_->is_object()) throw InputError(fmt::format("{} is not a JSON object", file_));
  object_ = root_.get();
}

ConfigReader::ConfigReader(Json object, std::string file, std::unordered_map<std::string, std::string> names)
    : root_(std::make_shared<const Json>(std::move(object))),
      names_(std::move(names)),
      object_(root_.get()),
      file_(std::move(file)) {}

ConfigReader::ConfigReader(std::shared_ptr<const Json> root, const Json* object, std::string file, std::string prefix)
    : root_(std::move(root)), object_(object), file_(std::move(file)), prefix_(std::move(prefix)) {}

const Json* ConfigReader::find(std::string_view field) const {
  const auto found = object_->find(field);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

const Json& ConfigReader::require(std::string_view field) const {
  const Json* value = find(field);
  if (!value) fail(field, "is missing");
  return *value;
}

bool ConfigReader::mentions(std::string_view field) const { return object_->find(field) != object_->end(); }
bool ConfigReader::has(std::string_view field) const { return find(field) != nullptr; }

int32_t ConfigReader::to_integer(const Json& value, std::string_view field, int32_t min, int32_t max) const {
  const bool whole = value.is_number_integer() || value.is_number_unsigned();
  if (!whole) fail(field, fmt::format("must be a whole number, but is {}", shown(value)));
  const bool fits = value.is_number_unsigned() ? value.get<uint64_t>() <= INT32_MAX
                                               : value.get<int64_t>() >= INT32_MIN && value.get<int64_t>() <= INT32_MAX;
  if (!fits || value.get<int32_t>() < min || value.get<int32_t>() > max)
    fail(field, fmt::format("must be from {} to {}, but is {}", min, max, shown(value)));
  return value.get<int32_t>();
}

int32_t ConfigReader::integer(std::string_view field, int32_t min, int32_t max) const {
  return to_integer(require(field), field, min, max);
}
int32_t ConfigReader::integer(std::string_view field, int32_t min, int32_t max, int32_t fallback) const {
  return has(field) ? integer(field, min, max) : fallback;
}

double ConfigReader::number(std::string_view field, double min, double max) const {
  const Json& value = require(field);
  if (!value.is_number()) fail(field, fmt::format("must be a number, but is {}", shown(value)));
  const auto number = value.get<double>();
  if (!(number >= min && number <= max))
    fail(field, fmt::format("must be from {} to {}, but is {}", min, max, shown(value)));
  return number;
}
double ConfigReader::number(std::string_view field, double min, double max, double fallback) const {
  return has(field) ? number(field, min, max) : fallback;
}

bool ConfigReader::flag(std::string_view field, bool fallback) const {
  const Json* value = find(field);
  if (!value) return fallback;
  if (!value->is_boolean()) fail(field, fmt::format("must be true or false, but is {}", shown(*value)));
  return value->get<bool>();
}

std::string ConfigReader::text(std::string_view field) const {
  const Json& value = require(field);
  if (!value.is_string()) fail(field, fmt::format("must be a string, but is {}", shown(value)));
  return value.get<std::string>();
}
std::string ConfigReader::text(std::string_view field, std::string_view fallback) const {
  return has(field) ? text(field) : std::string(fallback);
}

std::vector<std::string> ConfigReader::texts(std::string_view field) const {
  std::vector<std::string> out;
  const Json* value = find(field);
  if (!value) return out;
  if (!value->is_array()) fail(field, fmt::format("must be a list of strings, but is {}", shown(*value)));
  for (const Json& item : *value) {
    if (!item.is_string()) fail(field, fmt::format("must be a list of strings, but holds {}", shown(item)));
    out.push_back(item.get<std::string>());
  }
  return out;
}

std::vector<double> ConfigReader::numbers(std::string_view field, double min, double max) const {
  std::vector<double> out;
  const Json* value = find(field);
  if (!value) return out;
  if (!value->is_array()) fail(field, fmt::format("must be a list of numbers, but is {}", shown(*value)));
  for (const Json& item : *value) {
    if (!item.is_number()) fail(field, fmt::format("must be a list of numbers, but holds {}", shown(item)));
    const auto number = item.get<double>();
    if (!(number >= min && number <= max))
      fail(field, fmt::format("must hold numbers from {} to {}, but holds {}", min, max, shown(item)));
    out.push_back(number);
  }
  return out;
}

std::vector<int32_t> ConfigReader::integers(std::string_view field, int32_t min, int32_t max) const {
  std::vector<int32_t> out;
  const Json* value = find(field);
  if (!value) return out;
  if (!value->is_array()) return {to_integer(*value, field, min, max)};
  for (const Json& item : *value) out.push_back(to_integer(item, field, min, max));
  return out;
}

std::optional<ConfigReader> ConfigReader::object(std::string_view field) const {
  const Json* value = find(field);
  if (!value) return std::nullopt;
  if (!value->is_object()) fail(field, fmt::format("must be an object, but is {}", shown(*value)));
  if (value->empty()) return std::nullopt;
  return ConfigReader(root_, value, file_, prefix_ + std::string(field) + ".");
}

bool ConfigReader::has_nested_object() const {
  for (const Json& value : *object_)
    if (value.is_object()) return true;
  return false;
}

void ConfigReader::fail(std::string_view field, std::string_view what) const {
  const auto name = names_.find(std::string(field));
  if (name != names_.end()) throw InputError(fmt::format("{}: {} {}", file_, in_quotes(name->second), what));
  throw InputError(fmt::format("{}: {}{} {}", file_, prefix_, field, what));
}

void ConfigReader::reject_unless_neutral(std::string_view field, std::string_view why, double neutral) const {
  const Json* value = find(field);
  if (!value || *value == Json(false) || (value->is_number() && value->get<double>() == neutral)) return;
  fail(field, fmt::format("is {}: {}", shown(*value), why));
}

}  // namespace tinyserve
