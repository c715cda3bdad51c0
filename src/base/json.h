#pragma once
// JSON from outside: size, depth and UTF-8 are checked before anything is built from it.

#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace tinyserve {

using Json = nlohmann::json;
/// Keeps the order of members, for what is printed again: chat messages and tool schemas.
using OrderedJson = nlohmann::ordered_json;

struct JsonLimits {
  size_t max_bytes = size_t{256} << 20;  ///< of text
  int max_depth = 64;                    ///< of nested arrays and objects
  size_t max_members = 4096;             ///< of one object, parse_ordered_json only: it looks members up one by one
};

/// Parses `text`. `what` names it in messages ("config.json of model X", "the request body").
/// Throws InputError: too long, too deep, not JSON (with the byte position), invalid UTF-8, trailing bytes.
Json parse_json(std::string_view text, std::string_view what, const JsonLimits& limits = {});
/// The same with the order of members kept. Also throws for an object with more than limits.max_members members.
OrderedJson parse_ordered_json(std::string_view text, std::string_view what, const JsonLimits& limits = {});

}  // namespace tinyserve
