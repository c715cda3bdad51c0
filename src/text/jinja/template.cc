#include "text/jinja/template.h"

#include <nlohmann/json.hpp>

#include "text/jinja/interpreter.h"
#include "text/jinja/json.h"
#include "text/jinja/parser.h"
#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

bool valid_utf8(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    const unsigned char c = s[i];
    const size_t length = c < 0x80                ? 1
                          : c >= 0xC2 && c < 0xE0 ? 2
                          : (c & 0xF0) == 0xE0    ? 3
                          : c >= 0xF0 && c < 0xF5 ? 4
                                                  : 0;
    if (!length || i + length > s.size()) return false;
    for (size_t k = 1; k < length; ++k)
      if ((static_cast<unsigned char>(s[i + k]) & 0xC0) != 0x80) return false;
    const char32_t code = next_char(s, i);
    if ((length == 3 && (code < 0x800 || (code >= 0xD800 && code < 0xE000))) ||
        (length == 4 && (code < 0x10000 || code > 0x10FFFF)))
      return false;
  }
  return true;
}

std::tm local_now() {
  const std::time_t now = std::time(nullptr);
  std::tm out{};
  localtime_r(&now, &out);
  return out;
}

}  // namespace

struct Template::Tree {
  Body body;
};

Template::Template(std::string_view source, std::string name) : name_(std::move(name)) {
  if (!valid_utf8(source)) throw InputError(name_ + " is not valid UTF-8");
  tree_ = std::make_unique<const Tree>(Tree{parse(source, name_)});
}

Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

std::string Template::render(const nlohmann::ordered_json& variables, const Limits& limits,
                             const std::function<std::tm()>& now) const {
  Interpreter interpreter(limits, now ? now : local_now);
  try {
    std::vector<std::pair<std::string, Value>> values;
    for (const auto& [key, value] : variables.items())
      values.emplace_back(key, from_json(interpreter.runtime(), value));
    return interpreter.run(tree_->body, std::move(values));
  } catch (const TemplateError& e) {
    throw LocatedError(name_, interpreter.line(), e.what());
  }
}

}  // namespace tinyserve::jinja
