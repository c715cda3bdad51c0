#pragma once
// Reading a request's fields: every type and range is checked here, before the value is used for anything. A field that
// is null counts as absent, as OpenAI's clients expect. All members throw ApiError 400 naming the field.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace tinyserve {

class Fields {
 public:
  /// `object` outlives this. `path` is written before field names in errors ("stream_options.").
  explicit Fields(const OrderedJson& object, std::string path = {});

  /// The value, or null when absent or null.
  const OrderedJson* find(const char* name) const;
  /// A whole number written as one (not 3.0, "3" or true) within [min, max].
  std::optional<int64_t> integer(const char* name, int64_t min, int64_t max) const;
  /// A finite number within [min, max], or (min, max] when `above_min`.
  std::optional<double> number(const char* name, double min, double max, bool above_min = false) const;
  std::optional<bool> boolean(const char* name) const;
  std::optional<std::string> string(const char* name, size_t max_bytes = size_t{1} << 20) const;

  std::string path(const char* name) const { return path_ + name; }

 private:
  const OrderedJson& object_;
  std::string path_;
};

/// The integer checks of Fields::integer for a value on its own.
int64_t checked_integer(const OrderedJson& value, const std::string& path, int64_t min, int64_t max);
double checked_number(const OrderedJson& value, const std::string& path, double min, double max,
                      bool above_min = false);
/// The value for an error message: short, valid UTF-8.
std::string brief(const OrderedJson& value);
/// Refuses a body whose parse tree would be far larger than its text; then parses it into an object. ApiError 400.
OrderedJson parse_body(std::string_view body, size_t max_values);

}  // namespace tinyserve
