#include "base/json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"

namespace tinyserve {
namespace {

// Depth of nesting outside strings, found before parsing so that a deep document costs one scan and no tree.
int nesting_depth(std::string_view text, int limit) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      else if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
      if (deepest > limit) return deepest;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

void check_text(std::string_view text, std::string_view what, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes)
    throw InputError(fmt::format("{} has {} bytes, more than the limit of {}", what, text.size(), limits.max_bytes));
  if (nesting_depth(text, limits.max_depth) > limits.max_depth)
    throw InputError(fmt::format("{} nests arrays and objects more than {} deep", what, limits.max_depth));
}

/// The library's reason without what it read last: that may be megabytes, or no UTF-8, and the position says it as well.
std::string_view reason(const nlohmann::json::exception& e) {
  const std::string_view what = e.what();
  return what.substr(0, what.find("; last read"));
}

// Runs a parse and gives nlohmann's exceptions the name of what was parsed.
template <class F>
auto parse_named(std::string_view what, F parse) {
  try {
    return parse();
  } catch (const nlohmann::json::parse_error& e) {
    throw InputError(fmt::format("{} is not valid JSON (near byte {}): {}", what, e.byte, reason(e)));
  } catch (const nlohmann::json::exception& e) {
    throw InputError(fmt::format("{} is not valid JSON: {}", what, reason(e)));
  }
}

}  // namespace

Json parse_json(std::string_view text, std::string_view what, const JsonLimits& limits) {
  check_text(text, what, limits);
  return parse_named(what, [&] { return Json::parse(text); });
}

OrderedJson parse_ordered_json(std::string_view text, std::string_view what, const JsonLimits& limits) {
  check_text(text, what, limits);
  std::vector<size_t> members;  // of each object that is open
  const auto count = [&](int, OrderedJson::parse_event_t event, OrderedJson&) {
    if (event == OrderedJson::parse_event_t::object_start) members.push_back(0);
    if (event == OrderedJson::parse_event_t::object_end) members.pop_back();
    if (event == OrderedJson::parse_event_t::key && ++members.back() > limits.max_members)
      throw InputError(fmt::format("{} has an object with more than {} members", what, limits.max_members));
    return true;
  };
  return parse_named(what, [&] { return OrderedJson::parse(text, count); });
}

}  // namespace tinyserve
