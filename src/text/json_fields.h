#pragma once
// Typed access to the fields of tokenizer files; a field that is absent or of another type is an InputError with its
// path. For .cc files only: it brings in the whole JSON header.

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace tinyserve::fields {

[[noreturn]] inline void fail(std::string_view where, std::string_view key, std::string_view why) {
  throw InputError(fmt::format("{}.{} {}", where, key, why));
}

/// The field, or null when it is absent or JSON null.
inline const Json* find(const Json& object, const char* key, std::string_view where) {
  if (!object.is_object()) throw InputError(fmt::format("{} is not an object", where));
  auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

inline const Json& require(const Json& object, const char* key, std::string_view where) {
  const Json* value = find(object, key, where);
  if (!value) fail(where, key, "is missing");
  return *value;
}

inline bool boolean(const Json& object, const char* key, std::string_view where, std::optional<bool> absent = {}) {
  const Json* value = find(object, key, where);
  if (!value && absent) return *absent;
  if (!value) fail(where, key, "is missing");
  if (!value->is_boolean()) fail(where, key, "is not true or false");
  return value->get<bool>();
}

inline const std::string& text(const Json& object, const char* key, std::string_view where) {
  const Json& value = require(object, key, where);
  if (!value.is_string()) fail(where, key, "is not a string");
  return value.get_ref<const std::string&>();
}

inline std::string text_or(const Json& object, const char* key, std::string_view where, std::string absent) {
  return find(object, key, where) ? text(object, key, where) : absent;
}

/// A whole number in [low, high].
inline int64_t whole(const Json& value, std::string_view where, int64_t low, int64_t high) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    throw InputError(fmt::format("{} is {}, outside {} to {}", where, value.get<uint64_t>(), low, high));
  if (!value.is_number_integer()) throw InputError(fmt::format("{} is not a whole number", where));
  const auto number = value.get<int64_t>();
  if (number < low || number > high)
    throw InputError(fmt::format("{} is {}, outside {} to {}", where, number, low, high));
  return number;
}

inline int64_t whole(const Json& object, const char* key, std::string_view where, int64_t low, int64_t high) {
  return whole(require(object, key, where), fmt::format("{}.{}", where, key), low, high);
}

inline const Json& array(const Json& object, const char* key, std::string_view where) {
  const Json& value = require(object, key, where);
  if (!value.is_array()) fail(where, key, "is not an array");
  return value;
}

}  // namespace tinyserve::fields
