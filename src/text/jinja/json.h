#pragma once
// Between JSON documents and template values.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "text/jinja/runtime.h"

namespace tinyserve::jinja {

/// Lists, dicts in the document's order, strings, numbers. An unsigned number past 2^63 - 1 becomes a float, as JSON
/// numbers past 2^64 already are when they are parsed.
Value from_json(Runtime& runtime, const nlohmann::ordered_json& json);

struct DumpOptions {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::string indent;   ///< one level of indentation
  bool pretty = false;  ///< an indent was given, if only ""
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

/// json.dumps() of Python, which |tojson is in transformers' environment. Throws TemplateError for what JSON lacks.
std::string dump_json(Runtime& runtime, const Value& value, const DumpOptions& options);

}  // namespace tinyserve::jinja
