// Filters that make text.
#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/json.h"
#include "text/jinja/operators.h"
#include "text/jinja/registry.h"
#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

// Most text filters take anything and start with str(value).
Value soft_text(Runtime& runtime, const Value& v) { return v.is_string() ? v : runtime.text(runtime.text_of(v)); }

Value mapped(Runtime& runtime, const Value& v, Args& args, const char* name, std::string (*map)(std::string_view)) {
  ArgReader(std::string("filter '") + name + "'", args).done();
  const Value text = soft_text(runtime, v);
  runtime.step_bytes(4 * text.string().size());
  return runtime.text(map(text.string()), text.is_safe());
}

Value trim(Runtime& runtime, const Value& v, Args& args) {
  return call_method(runtime, soft_text(runtime, v), "strip", args);
}

// Unlike str.title(), words begin only after white space, hyphens and opening brackets.
Value title(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'title'", args).done();
  const Value text = soft_text(runtime, v);
  const std::string& s = text.string();
  runtime.step_bytes(4 * s.size());
  std::string out;
  const auto breaks = [](char32_t c) {
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  for (size_t i = 0; i < s.size();) {
    size_t end = i;
    while (end < s.size()) {
      size_t q = end;
      if (breaks(next_char(s, q))) break;
      end = q;
    }
    size_t first = i;
    if (end > i) {
      next_char(s, first);
      out += to_upper(std::string_view(s).substr(i, first - i));
      out += to_lower(std::string_view(s).substr(first, end - first));
    }
    if (end < s.size()) {
      const size_t begin = end;
      next_char(s, end);
      out += s.substr(begin, end - begin);
    }
    i = end;
  }
  return runtime.text(std::move(out));
}

Value replace(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'replace'", args);
  const std::string from = runtime.text_of(reader.required("old")), to = runtime.text_of(reader.required("new"));
  const Value* count = reader.next("count");
  reader.done();
  int64_t left = -1;
  if (count && !count->is_none()) {
    if (!count->is_integer()) reader.fail("the count must be an integer");
    left = count->integer();
  }
  if (left < 0) left = INT64_MAX;
  const Value text = soft_text(runtime, v);
  const std::string& s = text.string();
  std::string out;
  const auto append = [&](std::string_view piece) {
    runtime.charge(piece.size());
    if (out.size() + piece.size() > runtime.limits().max_output_bytes) runtime.charge_text(out.size() + piece.size());
    out += piece;
  };
  size_t i = 0;
  if (from.empty()) {  // between all characters, as Python does
    while (left-- > 0) {
      append(to);
      if (i == s.size()) break;
      const size_t begin = i;
      next_char(s, i);
      append(std::string_view(s).substr(begin, i - begin));
    }
  } else {
    for (size_t at = s.find(from); at != s.npos && left-- > 0; at = s.find(from, i)) {
      append(std::string_view(s).substr(i, at - i));
      append(to);
      i = at + from.size();
    }
  }
  append(std::string_view(s).substr(i));
  return Value::text(std::move(out));
}

Value indent(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'indent'", args);
  const Value* width = reader.next("width");
  const bool first = reader.boolean("first", false), blank = reader.boolean("blank", false);
  reader.done();
  if (!v.is_string()) {
    if (v.is_undefined()) throw TemplateError(v.undefined_message());
    reader.fail(fmt::format("takes a string, not {}", type_name(v)));
  }
  std::string pad = "    ";
  if (width && width->is_string()) {
    pad = width->string();
  } else if (width) {
    if (!width->is_integer()) reader.fail("the width must be an integer or a string");
    const int64_t n = std::max<int64_t>(width->integer(), 0);
    runtime.charge_text(static_cast<size_t>(n));
    pad = std::string(static_cast<size_t>(n), ' ');
  }
  const std::string s = v.string() + "\n";  // jinja2 adds it before splitting into lines
  std::string out;
  if (first) out += pad;
  for (size_t begin = 0; begin < s.size();) {
    size_t end = begin, length = 0;
    while (end < s.size() && !(length = line_break_at(s, end))) next_char(s, end);
    runtime.charge_text(pad.size() + end - begin + 1);
    if (begin > 0) {
      out += '\n';
      if (blank || end > begin) out += pad;
    }
    if (out.size() + end - begin > runtime.limits().max_output_bytes) runtime.charge_text(out.size() + end - begin);
    out += s.substr(begin, end - begin);
    begin = end + length;
  }
  return runtime.text(std::move(out), v.is_safe());
}

Value escape(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'escape'", args).done();
  if (v.is_safe()) return v;
  const Value text = soft_text(runtime, v);
  runtime.charge(5 * text.string().size());
  return runtime.text(escape_html(text.string()), true);
}

Value force_escape(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'forceescape'", args).done();
  const Value text = soft_text(runtime, v);
  runtime.charge(5 * text.string().size());
  return runtime.text(escape_html(text.string()), true);
}

Value safe(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'safe'", args).done();
  return v.is_safe() ? v : runtime.text(runtime.text_of(v), true);
}

Value string(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'string'", args).done();
  return soft_text(runtime, v);
}

Value format(Runtime& runtime, const Value& v, Args& args) {
  if (!args.positional.empty() && !args.keyword.empty())
    throw TemplateError("filter 'format': takes values or names, not both");
  Value values;
  if (!args.keyword.empty()) {
    Dict dict;
    for (const auto& [name, value] : args.keyword) dict.set(runtime.text(name), value);
    values = runtime.dict(std::move(dict));
  } else {
    values = runtime.tuple(args.positional);
  }
  return runtime.text(format_percent(runtime, soft_text(runtime, v).string(), values));
}

Value tojson(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'tojson'", args);
  DumpOptions options;
  options.ensure_ascii = reader.boolean("ensure_ascii", false);
  const Value* indent = reader.next("indent");
  const Value* separators = reader.next("separators");
  options.sort_keys = reader.boolean("sort_keys", false);
  reader.done();
  if (indent && !indent->is_none()) {
    options.pretty = true;
    options.item_separator = ",";
    if (indent->is_string()) {
      options.indent = indent->string();
    } else if (indent->is_integer()) {
      const int64_t n = std::max<int64_t>(indent->integer(), 0);
      if (n > 1000) reader.fail("an indent of more than 1000");
      options.indent = std::string(static_cast<size_t>(n), ' ');
    } else {
      reader.fail("the indent must be an integer or a string");
    }
  }
  if (separators && !separators->is_none()) {
    const std::vector<Value> parts = runtime.items_of(*separators);
    if (parts.size() != 2 || !parts[0].is_string() || !parts[1].is_string())
      reader.fail("the separators must be two strings");
    options.item_separator = parts[0].string();
    options.key_separator = parts[1].string();
  }
  runtime.charge(v.weight() / 8 * (options.item_separator.size() + options.key_separator.size()));
  return runtime.text(dump_json(runtime, v, options));
}

Value word_count(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'wordcount'", args).done();
  const Value text = soft_text(runtime, v);
  const std::string& s = text.string();
  runtime.step_bytes(4 * s.size());
  int64_t n = 0;
  bool inside = false;
  for (size_t i = 0; i < s.size();) {
    const char32_t c = next_char(s, i);
    const bool word = c == '_' || is_alpha(c) || is_numeric(c);
    n += word && !inside;
    inside = word;
  }
  return Value(n);
}

Value truncate(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'truncate'", args);
  const int64_t length = reader.integer("length", 255);
  const bool kill_words = reader.boolean("killwords", false);
  const std::string end = reader.string("end", "...");
  const int64_t leeway = reader.integer("leeway", 5);
  reader.done();
  if (!v.is_string()) reader.fail(fmt::format("takes a string, not {}", type_name(v)));
  const int64_t end_chars = count_chars(end);
  if (length < end_chars || leeway < 0) reader.fail("the length must be at least that of the end, the leeway positive");
  if (v.text().num_chars - leeway <= length) return v;
  std::string out = v.string().substr(0, byte_offset(v.string(), length - end_chars));
  if (const size_t space = out.rfind(' '); !kill_words && space != out.npos) out.resize(space);
  return runtime.text(out + end);
}

constexpr FilterEntry kFilters[] = {
    {"trim", trim},
    {"upper", [](Runtime& r, const Value& v, Args& a) { return mapped(r, v, a, "upper", to_upper); }},
    {"lower", [](Runtime& r, const Value& v, Args& a) { return mapped(r, v, a, "lower", to_lower); }},
    {"capitalize", [](Runtime& r, const Value& v, Args& a) { return mapped(r, v, a, "capitalize", to_capitalized); }},
    {"title", title},
    {"replace", replace},
    {"indent", indent},
    {"escape", escape},
    {"e", escape},
    {"forceescape", force_escape},
    {"safe", safe},
    {"string", string},
    {"format", format},
    {"tojson", tojson},
    {"center",
     [](Runtime& r, const Value& v, Args& args) {
       ArgReader reader("filter 'center'", args);
       Args call;
       call.positional.push_back(Value(reader.integer("width", 80)));
       reader.done();
       return call_method(r, soft_text(r, v), "center", call);
     }},
    {"wordcount", word_count},
    {"truncate", truncate},
};

}  // namespace

std::span<const FilterEntry> text_filters() { return kFilters; }

}  // namespace tinyserve::jinja
