#include "text/jinja/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

void append_string(std::string& out, std::string_view s, bool ensure_ascii) {
  out += '"';
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    const char32_t c = next_char(s, i);
    switch (c) {
      case '"':
        out += "\\\"";
        continue;
      case '\\':
        out += "\\\\";
        continue;
      case '\n':
        out += "\\n";
        continue;
      case '\r':
        out += "\\r";
        continue;
      case '\t':
        out += "\\t";
        continue;
      case '\f':
        out += "\\f";
        continue;
      case '\b':
        out += "\\b";
        continue;
      default:
        break;
    }
    if (c < 0x20 || (ensure_ascii && c >= 0x7F && c < 0x10000 && c != 0x7F)) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else if (ensure_ascii && c >= 0x10000) {
      const uint32_t v = c - 0x10000;
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (v >> 10), 0xDC00 + (v & 0x3FF));
    } else {
      out += s.substr(begin, i - begin);
    }
  }
  out += '"';
}

std::string number(double d) {
  if (std::isnan(d)) return "NaN";
  if (std::isinf(d)) return d > 0 ? "Infinity" : "-Infinity";
  return float_repr(d);
}

std::string key_text(const Value& key) {
  switch (key.kind()) {
    case Kind::kString:
      return key.string();
    case Kind::kNone:
      return "null";
    case Kind::kBool:
      return key.boolean() ? "true" : "false";
    case Kind::kInt:
      return std::to_string(key.integer());
    case Kind::kFloat:
      return number(key.number());
    default:
      throw TemplateError(fmt::format("tojson: a key of type {} cannot be JSON", type_name(key)));
  }
}

class Dumper {
 public:
  Dumper(Runtime& runtime, const DumpOptions& options) : runtime_(runtime), options_(options) {}

  void dump(const Value& value, int level) {
    switch (value.kind()) {
      case Kind::kNone:
        out += "null";
        return;
      case Kind::kBool:
        out += value.boolean() ? "true" : "false";
        return;
      case Kind::kInt:
        out += std::to_string(value.integer());
        return;
      case Kind::kFloat:
        out += number(value.number());
        return;
      case Kind::kString:
        append_string(out, value.string(), options_.ensure_ascii);
        return;
      case Kind::kSequence:
        if (value.is_sequence(SequenceKind::kList) || value.is_sequence(SequenceKind::kTuple))
          return dump_list(value.sequence(), level);
        break;
      case Kind::kDict:
        return dump_dict(value.dict(), level);
      default:
        break;
    }
    if (value.is_undefined()) throw TemplateError("tojson: " + value.undefined_message());
    throw TemplateError(fmt::format("tojson: a value of type {} cannot be JSON", type_name(value)));
  }

  std::string out;

 private:
  void new_line(int level) {
    if (!options_.pretty) return;
    runtime_.charge(options_.indent.size() * level + 1);
    out += '\n';
    for (int i = 0; i < level; ++i) out += options_.indent;
  }

  void dump_list(const Sequence& s, int level) {
    out += '[';
    for (size_t i = 0; i < s.items.size(); ++i) {
      if (i) out += options_.item_separator;
      new_line(level + 1);
      dump(s.items[i], level + 1);
    }
    if (!s.items.empty()) new_line(level);
    out += ']';
  }

  void dump_dict(const Dict& dict, int level) {
    auto entries = dict.entries;
    if (options_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return compare(a.first, b.first) < 0; });
    out += '{';
    bool first = true;
    for (const auto& [key, value] : entries) {
      if (!first) out += options_.item_separator;
      first = false;
      new_line(level + 1);
      append_string(out, key_text(key), options_.ensure_ascii);
      out += options_.key_separator;
      dump(value, level + 1);
    }
    if (!entries.empty()) new_line(level);
    out += '}';
  }

  Runtime& runtime_;
  const DumpOptions& options_;
};

}  // namespace

Value from_json(Runtime& runtime, const nlohmann::ordered_json& json) {
  switch (json.type()) {
    case nlohmann::json::value_t::boolean:
      return Value(json.get<bool>());
    case nlohmann::json::value_t::number_integer:
      return Value(json.get<int64_t>());
    case nlohmann::json::value_t::number_unsigned: {
      const uint64_t u = json.get<uint64_t>();
      return u <= INT64_MAX ? Value(static_cast<int64_t>(u)) : Value(static_cast<double>(u));
    }
    case nlohmann::json::value_t::number_float:
      return Value(json.get<double>());
    case nlohmann::json::value_t::string:
      return runtime.text(json.get_ref<const std::string&>());
    case nlohmann::json::value_t::array: {
      const Runtime::Depth depth(runtime);
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(runtime, item));
      return runtime.sequence(std::move(items));
    }
    case nlohmann::json::value_t::object: {
      const Runtime::Depth depth(runtime);
      Dict dict;
      for (const auto& [key, value] : json.items()) dict.set(runtime.text(key), from_json(runtime, value));
      return runtime.dict(std::move(dict));
    }
    default:
      return Value::none();
  }
}

std::string dump_json(Runtime& runtime, const Value& value, const DumpOptions& options) {
  runtime.charge(2 * value.weight());
  Dumper dumper(runtime, options);
  dumper.dump(value, 0);
  return std::move(dumper.out);
}

}  // namespace tinyserve::jinja
