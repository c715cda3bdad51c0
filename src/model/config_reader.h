#pragma once
// Reads config.json field by field. Every number has bounds, every error names the file and the field, and a field that
// would change the result but is not computed is an error, never ignored.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"

namespace tinyserve {

class ConfigReader {
 public:
  /// Reads the file. Throws InputError: missing, not JSON, not an object.
  explicit ConfigReader(const std::filesystem::path& path);
  /// The same for an object made from another file. `names`: what to call fields of it in messages.
  ConfigReader(Json object, std::string file, std::unordered_map<std::string, std::string> names);

  /// Present, null included.
  bool mentions(std::string_view field) const;
  /// Present and not null.
  bool has(std::string_view field) const;

  /// A whole number within [min, max]. Throws InputError when missing (or null), of another type, or out of bounds.
  /// With a fallback, a missing or null field is the fallback.
  int32_t integer(std::string_view field, int32_t min, int32_t max) const;
  int32_t integer(std::string_view field, int32_t min, int32_t max, int32_t fallback) const;
  /// A number within [min, max].
  double number(std::string_view field, double min, double max) const;
  double number(std::string_view field, double min, double max, double fallback) const;
  bool flag(std::string_view field, bool fallback) const;
  std::string text(std::string_view field) const;
  std::string text(std::string_view field, std::string_view fallback) const;
  /// A list of strings; empty when missing or null.
  std::vector<std::string> texts(std::string_view field) const;
  /// A list of numbers; empty when missing or null.
  std::vector<double> numbers(std::string_view field, double min, double max) const;
  /// One whole number or a list of them within [min, max]; empty when missing or null.
  std::vector<int32_t> integers(std::string_view field, int32_t min, int32_t max) const;
  /// A nested object; nothing when missing, null or empty. Its fields are named "outer.inner" in messages.
  std::optional<ConfigReader> object(std::string_view field) const;
  /// Whether any value of this object is itself an object.
  bool has_nested_object() const;

  /// Throws InputError: "<file>: <field> <what>".
  [[noreturn]] void fail(std::string_view field, std::string_view what) const;
  /// Fails when the field is there and is neither null, false, nor the number `neutral`.
  void reject_unless_neutral(std::string_view field, std::string_view why, double neutral = 0) const;

 private:
  ConfigReader(std::shared_ptr<const Json> root, const Json* object, std::string file, std::string prefix);
  const Json* find(std::string_view field) const;  // null when missing or JSON null
  const Json& require(std::string_view field) const;
  int32_t to_integer(const Json& value, std::string_view field, int32_t min, int32_t max) const;

  std::shared_ptr<const Json> root_;
  std::unordered_map<std::string, std::string> names_;
  const Json* object_ = nullptr;
  std::string file_;
  std::string prefix_;
};

}  // namespace tinyserve
