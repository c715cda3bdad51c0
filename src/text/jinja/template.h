#pragma once
// A parsed template, ready to be rendered by any number of threads at once.

#include <ctime>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "text/jinja/limits.h"

namespace tinyserve::jinja {

class Template {
 public:
  /// Parses `source`. `name` stands in front of messages ("chat template"). Throws InputError with line and reason:
  /// invalid UTF-8, syntax, constructs that are not supported, more nesting than limits.h allows.
  Template(std::string_view source, std::string name);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  /// Renders with the members of the object `variables`. `now` gives strftime_now its time; the local time if empty.
  /// Throws InputError: what the template raised, undefined values used, limits passed. Thread safe.
  std::string render(const nlohmann::ordered_json& variables, const Limits& limits = {},
                     const std::function<std::tm()>& now = {}) const;

 private:
  struct Tree;
  std::string name_;
  std::unique_ptr<const Tree> tree_;
};

}  // namespace tinyserve::jinja
