// Methods of strings, dicts and sequences. Those that would change a list or dict are refused, as in jinja2's
// immutable sandbox.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/jinja/operators.h"
#include "text/jinja/registry.h"
#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

using Method = Value (*)(Runtime& runtime, const Value& self, ArgReader& args);
struct MethodEntry {
  std::string_view name;
  Method call;  ///< null: Python has it, templates may not use it
};

Value strip_with(Runtime& runtime, const Value& self, ArgReader& args, bool left, bool right) {
  const Value* chars = args.next("chars");
  args.done();
  const std::string& s = self.string();
  runtime.step_bytes(s.size());
  if (!chars || chars->is_none()) return runtime.text(std::string(strip(s, nullptr, left, right)), self.is_safe());
  if (!chars->is_string()) args.fail(fmt::format("takes a string, not {}", type_name(*chars)));
  const std::string_view set = chars->string();
  return runtime.text(std::string(strip(s, &set, left, right)), self.is_safe());
}

// split() and rsplit() without a separator: at runs of white space, none at the ends.
std::vector<std::string_view> split_words(std::string_view s, int64_t limit, bool from_right) {
  std::vector<std::string_view> out;
  std::string_view rest = strip(s, nullptr, !from_right, from_right);
  while (!rest.empty()) {
    if (limit >= 0 && static_cast<int64_t>(out.size()) == limit) {
      out.push_back(rest);  // as it is: the white space at its far end stays
      break;
    }
    if (from_right) {
      size_t i = rest.size();
      while (i > 0) {
        size_t p = i - 1;
        while (p > 0 && (static_cast<unsigned char>(rest[p]) & 0xC0) == 0x80) --p;
        size_t q = p;
        if (is_space(next_char(rest, q))) break;
        i = p;
      }
      out.push_back(rest.substr(i));
      rest = strip(rest.substr(0, i), nullptr, false, true);
    } else {
      size_t i = 0;
      while (i < rest.size()) {
        size_t q = i;
        if (is_space(next_char(rest, q))) break;
        i = q;
      }
      out.push_back(rest.substr(0, i));
      rest = strip(rest.substr(i), nullptr, true, false);
    }
  }
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

Value split_with(Runtime& runtime, const Value& self, ArgReader& args, bool from_right) {
  const Value* separator = args.next("sep");
  const int64_t limit = args.integer("maxsplit", -1);
  args.done();
  const std::string& s = self.string();
  runtime.charge(s.size());
  std::vector<std::string_view> parts;
  if (!separator || separator->is_none()) {
    parts = split_words(s, limit, from_right);
  } else {
    if (!separator->is_string()) args.fail(fmt::format("takes a string, not {}", type_name(*separator)));
    const std::string& sep = separator->string();
    if (sep.empty()) args.fail("the separator is empty");
    std::string_view rest = s;
    while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
      const size_t at = from_right ? rest.rfind(sep) : rest.find(sep);
      if (at == rest.npos) break;
      parts.push_back(from_right ? rest.substr(at + sep.size()) : rest.substr(0, at));
      rest = from_right ? rest.substr(0, at) : rest.substr(at + sep.size());
    }
    parts.push_back(rest);
    if (from_right) std::reverse(parts.begin(), parts.end());
  }
  runtime.charge(parts.size() * (sizeof(Value) + sizeof(Text)));
  std::vector<Value> items;
  for (const std::string_view part : parts) items.push_back(Value::text(std::string(part), self.is_safe()));
  return runtime.sequence(std::move(items));
}

Value splitlines(Runtime& runtime, const Value& self, ArgReader& args) {
  const bool keep = args.boolean("keepends", false);
  args.done();
  const std::string& s = self.string();
  runtime.charge(s.size());
  std::vector<Value> lines;
  for (size_t begin = 0; begin < s.size();) {
    size_t end = begin, length = 0;
    while (end < s.size() && !(length = line_break_at(s, end))) next_char(s, end);
    lines.push_back(runtime.text(s.substr(begin, end - begin + (keep ? length : 0))));
    begin = end + length;
  }
  return runtime.sequence(std::move(lines));
}

// The part s[start:end] that find, count, startswith... look at, as bytes.
std::pair<size_t, size_t> window(const Value& self, ArgReader& args) {
  const auto bound = [&](std::string_view name, int64_t fallback) {
    const Value* v = args.next(name);
    if (!v || v->is_none()) return fallback;
    if (!v->is_integer()) args.fail(fmt::format("the argument '{}' must be an integer", name));
    const int64_t i = v->integer();
    return i < 0 ? std::max<int64_t>(i + self.text().num_chars, 0) : i;
  };
  const int64_t start = bound("start", 0), end = bound("end", INT64_MAX);
  args.done();
  if (start > self.text().num_chars || end < start) return {1, 0};  // nothing is found there, not even ""
  return {byte_offset(self.string(), start), end == INT64_MAX ? self.string().size() : byte_offset(self.string(), end)};
}

Value find_with(Runtime& runtime, const Value& self, ArgReader& args, bool from_right, bool must) {
  const std::string needle = args.string("sub", "");
  const auto [begin, end] = window(self, args);
  runtime.step_bytes(self.string().size());
  if (begin <= end) {
    const std::string_view part = std::string_view(self.string()).substr(begin, end - begin);
    const size_t at = from_right ? part.rfind(needle) : part.find(needle);
    if (at != part.npos) return Value(count_chars(std::string_view(self.string()).substr(0, begin + at)));
  }
  if (must) args.fail("the text was not found");
  return Value(-1);
}

Value affix(Runtime& runtime, const Value& self, ArgReader& args, bool start) {
  const Value affixes = args.required("prefix");
  const auto [begin, end] = window(self, args);
  if (begin > end) return Value(false);
  const std::string_view part = std::string_view(self.string()).substr(begin, end - begin);
  const auto matches = [&](const Value& v) {
    if (!v.is_string()) args.fail(fmt::format("takes a string or a tuple of strings, not {}", type_name(v)));
    return start ? part.starts_with(v.string()) : part.ends_with(v.string());
  };
  if (!affixes.is_sequence(SequenceKind::kTuple)) return Value(matches(affixes));
  runtime.step(static_cast<int64_t>(affixes.sequence().items.size()));
  return Value(std::any_of(affixes.sequence().items.begin(), affixes.sequence().items.end(), matches));
}

Value count_in(Runtime& runtime, const Value& self, ArgReader& args) {
  const std::string needle = args.string("sub", "");
  const auto [begin, end] = window(self, args);
  runtime.step_bytes(self.string().size());
  if (begin > end) return Value(0);
  const std::string_view part = std::string_view(self.string()).substr(begin, end - begin);
  if (needle.empty()) return Value(count_chars(part) + 1);
  int64_t n = 0;
  for (size_t at = part.find(needle); at != part.npos; at = part.find(needle, at + needle.size())) ++n;
  return Value(n);
}

Value partition(Runtime& runtime, const Value& self, ArgReader& args, bool from_right) {
  const std::string sep = args.string("sep", "");
  args.done();
  if (sep.empty()) args.fail("the separator is empty");
  const std::string& s = self.string();
  const size_t at = from_right ? s.rfind(sep) : s.find(sep);
  if (at == s.npos) {
    if (from_right) return runtime.tuple({runtime.text(""), runtime.text(""), self});
    return runtime.tuple({self, runtime.text(""), runtime.text("")});
  }
  return runtime.tuple({runtime.text(s.substr(0, at)), runtime.text(sep), runtime.text(s.substr(at + sep.size()))});
}

Value pad(Runtime& runtime, const Value& self, ArgReader& args, int left_share, int right_share) {
  const Value& width_value = args.required("width");
  if (!width_value.is_integer()) args.fail("the width must be an integer");
  const std::string fill = args.string("fillchar", " ");
  args.done();
  if (count_chars(fill) != 1) args.fail("the fill must be one character");
  const int64_t missing = width_value.integer() - self.text().num_chars;
  if (missing <= 0) return self;
  runtime.charge_text(static_cast<size_t>(missing));
  int64_t left = left_share && right_share ? missing / 2 + (missing & width_value.integer() & 1)
                 : left_share              ? missing
                                           : 0;
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += self.string();
  for (int64_t i = left; i < missing; ++i) out += fill;
  return runtime.text(std::move(out));
}

Value zfill(Runtime& runtime, const Value& self, ArgReader& args) {
  const Value& width = args.required("width");
  args.done();
  if (!width.is_integer()) args.fail("the width must be an integer");
  const int64_t missing = width.integer() - self.text().num_chars;
  if (missing <= 0) return self;
  runtime.charge_text(static_cast<size_t>(missing));
  std::string out = self.string();
  const bool sign = !out.empty() && (out[0] == '+' || out[0] == '-');
  out.insert(sign, static_cast<size_t>(missing), '0');
  return runtime.text(std::move(out));
}

template <bool (*accepts)(char32_t)>
Value all_chars(Runtime& runtime, const Value& self, ArgReader& args) {
  args.done();
  const std::string& s = self.string();
  runtime.step_bytes(s.size());
  for (size_t i = 0; i < s.size();)
    if (!accepts(next_char(s, i))) return Value(false);
  return Value(!s.empty() || accepts == is_printable);
}

bool is_alnum(char32_t c) { return is_alpha(c) || is_numeric(c); }

// islower(), isupper(): at least one letter of the case and none of the other.
template <bool lower>
Value has_case(Runtime& runtime, const Value& self, ArgReader& args) {
  args.done();
  const std::string& s = self.string();
  runtime.step_bytes(s.size());
  bool any = false;
  for (size_t i = 0; i < s.size();) {
    const char32_t c = next_char(s, i);
    if (is_title(c) || (lower ? is_upper(c) : is_lower(c))) return Value(false);
    any |= lower ? is_lower(c) : is_upper(c);
  }
  return Value(any);
}

Value is_titled(Runtime& runtime, const Value& self, ArgReader& args) {
  args.done();
  const std::string& s = self.string();
  runtime.step_bytes(s.size());
  bool any = false, previous_cased = false;
  for (size_t i = 0; i < s.size();) {
    const char32_t c = next_char(s, i);
    const bool big = is_upper(c) || is_title(c), small = is_lower(c);
    if ((big && previous_cased) || (small && !previous_cased)) return Value(false);
    previous_cased = big || small;
    any |= previous_cased;
  }
  return Value(any);
}

Value join(Runtime& runtime, const Value& self, ArgReader& args) {
  const Value iterable = args.required("iterable");
  args.done();
  std::string out;
  bool first = true;
  for (const Value& item : runtime.items_of(iterable)) {
    if (!item.is_string()) args.fail(fmt::format("can only join strings, not {}", type_name(item)));
    runtime.charge_text(out.size() + self.string().size() + item.string().size() > runtime.limits().max_output_bytes
                            ? runtime.limits().max_output_bytes + 1
                            : self.string().size() + item.string().size());
    if (!first) out += self.string();
    first = false;
    out += item.string();
  }
  return runtime.text(std::move(out));
}

Value replace(Runtime& runtime, const Value& self, ArgReader& args) {
  Args call;
  call.positional = {args.required("old"), args.required("new")};
  if (const Value* count = args.next("count")) call.positional.push_back(*count);
  args.done();
  for (size_t i = 0; i < 2; ++i)
    if (!call.positional[i].is_string()) args.fail(fmt::format("takes strings, not {}", type_name(call.positional[i])));
  return runtime.apply_filter("replace", self, call);
}

Value mapped(Runtime& runtime, const Value& self, ArgReader& args, std::string (*map)(std::string_view)) {
  args.done();
  runtime.step_bytes(4 * self.string().size());
  return runtime.text(map(self.string()), self.is_safe());
}

Value remove_affix(Runtime& runtime, const Value& self, ArgReader& args, bool prefix) {
  const std::string affix = args.string("affix", "");
  args.done();
  const std::string& s = self.string();
  if (affix.empty() || !(prefix ? s.starts_with(affix) : s.ends_with(affix))) return self;
  return runtime.text(prefix ? s.substr(affix.size()) : s.substr(0, s.size() - affix.size()));
}

constexpr MethodEntry kStringMethods[] = {
    {"strip", [](Runtime& r, const Value& s, ArgReader& a) { return strip_with(r, s, a, true, true); }},
    {"lstrip", [](Runtime& r, const Value& s, ArgReader& a) { return strip_with(r, s, a, true, false); }},
    {"rstrip", [](Runtime& r, const Value& s, ArgReader& a) { return strip_with(r, s, a, false, true); }},
    {"split", [](Runtime& r, const Value& s, ArgReader& a) { return split_with(r, s, a, false); }},
    {"rsplit", [](Runtime& r, const Value& s, ArgReader& a) { return split_with(r, s, a, true); }},
    {"splitlines", splitlines},
    {"startswith", [](Runtime& r, const Value& s, ArgReader& a) { return affix(r, s, a, true); }},
    {"endswith", [](Runtime& r, const Value& s, ArgReader& a) { return affix(r, s, a, false); }},
    {"find", [](Runtime& r, const Value& s, ArgReader& a) { return find_with(r, s, a, false, false); }},
    {"rfind", [](Runtime& r, const Value& s, ArgReader& a) { return find_with(r, s, a, true, false); }},
    {"index", [](Runtime& r, const Value& s, ArgReader& a) { return find_with(r, s, a, false, true); }},
    {"rindex", [](Runtime& r, const Value& s, ArgReader& a) { return find_with(r, s, a, true, true); }},
    {"count", count_in},
    {"replace", replace},
    {"join", join},
    {"upper", [](Runtime& r, const Value& s, ArgReader& a) { return mapped(r, s, a, to_upper); }},
    {"lower", [](Runtime& r, const Value& s, ArgReader& a) { return mapped(r, s, a, to_lower); }},
    {"title", [](Runtime& r, const Value& s, ArgReader& a) { return mapped(r, s, a, to_title); }},
    {"capitalize", [](Runtime& r, const Value& s, ArgReader& a) { return mapped(r, s, a, to_capitalized); }},
    {"swapcase", [](Runtime& r, const Value& s, ArgReader& a) { return mapped(r, s, a, to_swapped); }},
    {"partition", [](Runtime& r, const Value& s, ArgReader& a) { return partition(r, s, a, false); }},
    {"rpartition", [](Runtime& r, const Value& s, ArgReader& a) { return partition(r, s, a, true); }},
    {"removeprefix", [](Runtime& r, const Value& s, ArgReader& a) { return remove_affix(r, s, a, true); }},
    {"removesuffix", [](Runtime& r, const Value& s, ArgReader& a) { return remove_affix(r, s, a, false); }},
    {"center", [](Runtime& r, const Value& s, ArgReader& a) { return pad(r, s, a, 1, 1); }},
    {"ljust", [](Runtime& r, const Value& s, ArgReader& a) { return pad(r, s, a, 0, 1); }},
    {"rjust", [](Runtime& r, const Value& s, ArgReader& a) { return pad(r, s, a, 1, 0); }},
    {"zfill", zfill},
    {"isspace", all_chars<is_space>},
    {"isalpha", all_chars<is_alpha>},
    {"isalnum", all_chars<is_alnum>},
    {"isdigit", all_chars<is_digit>},
    {"isdecimal", all_chars<is_decimal>},
    {"isnumeric", all_chars<is_numeric>},
    {"isprintable", all_chars<is_printable>},
    {"isascii",
     [](Runtime& r, const Value& s, ArgReader& a) {
       a.done();
       r.step_bytes(s.string().size());
       return Value(std::all_of(s.string().begin(), s.string().end(), [](char c) { return !(c & 0x80); }));
     }},
    {"islower", has_case<true>},
    {"isupper", has_case<false>},
    {"istitle", is_titled},
    {"format", nullptr},  // needs the raw arguments: see call_method
    {"casefold", nullptr},
    {"encode", nullptr},
    {"expandtabs", nullptr},
    {"format_map", nullptr},
    {"isidentifier", nullptr},
    {"maketrans", nullptr},
    {"translate", nullptr},
};

enum class View { kItems, kKeys, kValues };

Value dict_view(Runtime& runtime, const Value& self, ArgReader& args, View view) {
  args.done();
  std::vector<Value> items;
  runtime.charge(self.dict().entries.size() * sizeof(Value));
  for (const auto& [key, value] : self.dict().entries)
    items.push_back(view == View::kItems ? runtime.tuple({key, value}) : view == View::kKeys ? key : value);
  return runtime.sequence(std::move(items), SequenceKind::kDictView,
                          view == View::kItems  ? "dict_items"
                          : view == View::kKeys ? "dict_keys"
                                                : "dict_values");
}

constexpr MethodEntry kDictMethods[] = {
    {"items", [](Runtime& r, const Value& s, ArgReader& a) { return dict_view(r, s, a, View::kItems); }},
    {"keys", [](Runtime& r, const Value& s, ArgReader& a) { return dict_view(r, s, a, View::kKeys); }},
    {"values", [](Runtime& r, const Value& s, ArgReader& a) { return dict_view(r, s, a, View::kValues); }},
    {"get",
     [](Runtime&, const Value& self, ArgReader& args) {
       const Value& key = args.required("key");
       const Value* fallback = args.next("default");
       args.done();
       const Value* found = self.dict().find(key);
       return found ? *found : fallback ? *fallback : Value::none();
     }},
    {"copy",
     [](Runtime&, const Value& self, ArgReader& args) {
       args.done();
       return self;
     }},
    {"fromkeys", nullptr},
    {"clear", nullptr},
    {"pop", nullptr},
    {"popitem", nullptr},
    {"setdefault", nullptr},
    {"update", nullptr},
};

Value sequence_index(Runtime& runtime, const Value& self, ArgReader& args) {
  const Value& wanted = args.required("value");
  args.done();
  const auto& items = self.sequence().items;
  for (size_t i = 0; i < items.size(); ++i) {
    runtime.step();
    if (runtime.equal(items[i], wanted)) return Value(static_cast<int64_t>(i));
  }
  args.fail("the value is not in the list");
}

Value sequence_count(Runtime& runtime, const Value& self, ArgReader& args) {
  const Value& wanted = args.required("value");
  args.done();
  int64_t n = 0;
  for (const Value& item : self.sequence().items) {
    runtime.step();
    n += runtime.equal(item, wanted);
  }
  return Value(n);
}

constexpr MethodEntry kSequenceMethods[] = {{"index", sequence_index}, {"count", sequence_count}};
constexpr MethodEntry kListMethods[] = {
    {"index", sequence_index},
    {"count", sequence_count},
    {"copy",
     [](Runtime&, const Value& self, ArgReader& args) {
       args.done();
       return self;
     }},
    {"append", nullptr},
    {"clear", nullptr},
    {"extend", nullptr},
    {"insert", nullptr},
    {"pop", nullptr},
    {"remove", nullptr},
    {"reverse", nullptr},
    {"sort", nullptr},
};

const MethodEntry* find_method(const Value& object, std::string_view name) {
  std::span<const MethodEntry> methods;
  if (object.is_string())
    methods = kStringMethods;
  else if (object.is_dict())
    methods = kDictMethods;
  else if (object.is_sequence(SequenceKind::kList))
    methods = kListMethods;
  else if (object.is_sequence(SequenceKind::kTuple) || object.is_sequence(SequenceKind::kRange))
    methods = kSequenceMethods;
  const auto found = std::find_if(methods.begin(), methods.end(), [&](const auto& m) { return m.name == name; });
  return found == methods.end() ? nullptr : &*found;
}

}  // namespace

bool has_method(const Value& object, std::string_view name) { return find_method(object, name) != nullptr; }

bool may_call_method(const Value& object, std::string_view name) {
  const MethodEntry* method = find_method(object, name);
  return method && (method->call || (name == "format" && object.is_string()));
}

Value call_method(Runtime& runtime, const Value& object, std::string_view name, Args& args) {
  const MethodEntry* method = find_method(object, name);
  runtime.step();
  if (method && !method->call && name == "format" && object.is_string())
    return runtime.text(format_braces(runtime, object.string(), args));
  if (!method || !method->call)
    throw TemplateError(fmt::format("the method '{}' of {} is not available in templates", name, type_name(object)));
  ArgReader reader(fmt::format("method '{}' of {}", name, type_name(object)), args);
  return method->call(runtime, object, reader);
}

}  // namespace tinyserve::jinja
