#include "text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "text/jinja/error.h"
#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

constexpr size_t kIndexFrom = 8;  // below this a scan is faster than hashing

size_t hash_string(std::string_view s) { return std::hash<std::string_view>()(s); }

void append_repr(std::string& out, const Value& value);

// repr() of a string: single quotes unless it holds some and no double quotes.
void append_string_repr(std::string& out, std::string_view s) {
  const char quote = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
  out += quote;
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    const char32_t c = next_char(s, i);
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      out += s.substr(begin, i - begin);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  }
  out += quote;
}

void append_items(std::string& out, const Sequence& s, char open, char close) {
  out += open;
  for (size_t i = 0; i < s.items.size(); ++i) {
    if (i) out += ", ";
    append_repr(out, s.items[i]);
  }
  if (s.kind == SequenceKind::kTuple && s.items.size() == 1) out += ',';
  out += close;
}

void append_repr(std::string& out, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      out += "Undefined";
      return;
    case Kind::kNone:
      out += "None";
      return;
    case Kind::kBool:
      out += value.boolean() ? "True" : "False";
      return;
    case Kind::kInt:
      out += std::to_string(value.integer());
      return;
    case Kind::kFloat:
      out += float_repr(value.number());
      return;
    case Kind::kString:
      if (value.is_safe()) out += "Markup(";
      append_string_repr(out, value.string());
      if (value.is_safe()) out += ")";
      return;
    case Kind::kSequence: {
      const Sequence& s = value.sequence();
      switch (s.kind) {
        case SequenceKind::kList:
          append_items(out, s, '[', ']');
          return;
        case SequenceKind::kTuple:
          append_items(out, s, '(', ')');
          return;
        case SequenceKind::kRange:
          out += s.label;
          return;
        case SequenceKind::kDictView:
          out += s.label + "(";
          append_items(out, s, '[', ']');
          out += ')';
          return;
        case SequenceKind::kIterator:
          throw TemplateError(
              "cannot print an iterator, which is what filters such as map, select and reverse give; "
              "make it a list with |list first");
      }
      return;
    }
    case Kind::kDict: {
      out += '{';
      bool first = true;
      for (const auto& [key, item] : value.dict().entries) {
        if (!first) out += ", ";
        first = false;
        append_repr(out, key);
        out += ": ";
        append_repr(out, item);
      }
      out += '}';
      return;
    }
    case Kind::kObject:
      if (!value.object()->printable())
        throw TemplateError(fmt::format("cannot print a {}; is a call's () missing?", value.object()->describe()));
      out += "<" + value.object()->describe() + ">";
      return;
  }
}

int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integer() && b.is_integer()) return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  return a.number() < b.number() ? -1 : a.number() > b.number();
}

bool listlike(const Value& v) {
  return v.is_sequence(SequenceKind::kList) || v.is_sequence(SequenceKind::kTuple) ||
         v.is_sequence(SequenceKind::kRange);
}

}  // namespace

std::optional<Value> Object::attribute(Runtime&, std::string_view) { return std::nullopt; }

Value Value::none() {
  Value v;
  v.data_ = NoneType{};
  return v;
}

Value Value::undefined(std::string message) {
  Value v;
  v.data_ = std::make_shared<const UndefinedInfo>(UndefinedInfo{std::move(message)});
  return v;
}

Value Value::text(std::string bytes, bool safe) {
  auto text = std::make_shared<Text>();
  text->num_chars = count_chars(bytes);
  text->bytes = std::move(bytes);
  text->safe = safe;
  return Value(TextPtr(std::move(text)));
}

std::string Value::undefined_message() const {
  const auto& info = std::get<UndefinedPtr>(data_);
  return info ? info->message : "the value is undefined";
}

int Value::depth() const {
  if (is_sequence()) return sequence().depth;
  return is_dict() ? dict().depth : 0;
}

size_t Value::weight() const {
  if (is_string()) return 16 + string().size();
  if (is_sequence()) return 16 + sequence().weight;
  return is_dict() ? 16 + dict().weight : 16;
}

const Value* Dict::find(const Value& key) const {
  if (entries.size() <= kIndexFrom) {
    hash_of(key);  // an unhashable key is an error whatever the size
    for (const auto& entry : entries)
      if (equal(entry.first, key)) return &entry.second;
    return nullptr;
  }
  const auto [begin, end] = index_.equal_range(hash_of(key));
  for (auto it = begin; it != end; ++it)
    if (equal(entries[it->second].first, key)) return &entries[it->second].second;
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  const auto matches = [&](const Value& k) { return k.is_string() && k.string() == key; };
  if (entries.size() <= kIndexFrom) {
    for (const auto& entry : entries)
      if (matches(entry.first)) return &entry.second;
    return nullptr;
  }
  const auto [begin, end] = index_.equal_range(hash_string(key));
  for (auto it = begin; it != end; ++it)
    if (matches(entries[it->second].first)) return &entries[it->second].second;
  return nullptr;
}

void Dict::set(const Value& key, Value value) {
  depth = std::max({depth, value.depth() + 1, key.depth() + 1});
  weight += key.weight() + value.weight();
  if (const Value* old = find(key)) {
    *const_cast<Value*>(old) = std::move(value);  // ours: entries is not const here
    return;
  }
  entries.emplace_back(key, std::move(value));
  if (entries.size() == kIndexFrom + 1)
    for (size_t i = 0; i < entries.size(); ++i) index_.emplace(hash_of(entries[i].first), i);
  else if (entries.size() > kIndexFrom)
    index_.emplace(hash_of(key), entries.size() - 1);
}

std::string type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "undefined";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      return value.object()->describe();
    case Kind::kSequence:
      break;
  }
  switch (value.sequence().kind) {
    case SequenceKind::kList:
      return "list";
    case SequenceKind::kTuple:
      return "tuple";
    case SequenceKind::kRange:
      return "range";
    case SequenceKind::kDictView:
      return value.sequence().label;
    case SequenceKind::kIterator:
      return "iterator";
  }
  return "value";
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.boolean();
    case Kind::kInt:
      return value.integer() != 0;
    case Kind::kFloat:
      return value.number() != 0;
    case Kind::kString:
      return !value.string().empty();
    case Kind::kSequence:
      return value.is_sequence(SequenceKind::kIterator) || !value.sequence().items.empty();
    case Kind::kDict:
      return !value.dict().entries.empty();
    case Kind::kObject:
      return true;
  }
  return false;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      return a.string() == b.string();
    case Kind::kObject:
      return a.object() == b.object();
    case Kind::kSequence: {
      const Sequence &x = a.sequence(), &y = b.sequence();
      if (&x == &y) return true;
      if (x.kind != y.kind || x.kind == SequenceKind::kIterator || x.items.size() != y.items.size()) return false;
      return std::equal(x.items.begin(), x.items.end(), y.items.begin(), equal);
    }
    case Kind::kDict: {
      const Dict &x = a.dict(), &y = b.dict();
      if (x.entries.size() != y.entries.size()) return false;
      return std::all_of(x.entries.begin(), x.entries.end(), [&](const auto& entry) {
        const Value* other = y.find(entry.first);
        return other && equal(entry.second, *other);
      });
    }
    default:
      return false;
  }
}

int compare(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b);
  if (a.is_string() && b.is_string()) return a.string().compare(b.string());  // UTF-8 sorts as code points do
  if (listlike(a) && listlike(b) && a.sequence().kind == b.sequence().kind && !a.is_sequence(SequenceKind::kRange)) {
    const auto &x = a.sequence().items, &y = b.sequence().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(x[i], y[i])) return compare(x[i], y[i]);
    return x.size() < y.size() ? -1 : x.size() > y.size();
  }
  if (a.is_undefined()) throw TemplateError(a.undefined_message());
  if (b.is_undefined()) throw TemplateError(b.undefined_message());
  throw TemplateError(fmt::format("cannot order {} and {}", type_name(a), type_name(b)));
}

size_t hash_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 1;
    case Kind::kNone:
      return 2;
    case Kind::kBool:
    case Kind::kInt:
      return std::hash<int64_t>()(value.integer());
    case Kind::kFloat: {
      const double d = value.number();
      if (std::floor(d) == d && std::abs(d) < 9e18) return std::hash<int64_t>()(static_cast<int64_t>(d));
      return std::hash<double>()(d);
    }
    case Kind::kString:
      return hash_string(value.string());
    case Kind::kObject:
      return std::hash<const void*>()(value.object());
    case Kind::kSequence:
      if (value.is_sequence(SequenceKind::kTuple)) {
        size_t h = 31;
        for (const Value& item : value.sequence().items) h = h * 1000003 + hash_of(item);
        return h;
      }
      [[fallthrough]];
    case Kind::kDict:
      break;
  }
  throw TemplateError(fmt::format("a value of type {} cannot be a key", type_name(value)));
}

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  std::array<char, 40> buffer;
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), d, std::chars_format::scientific);
  const std::string_view text(buffer.data(), result.ptr - buffer.data());
  const size_t e = text.find('e');
  int exponent = 0;
  const char* digits = text.data() + e + 1;
  if (*digits == '+') ++digits;
  std::from_chars(digits, text.data() + text.size(), exponent);
  // Python switches to the scientific form outside 1e-4 <= |d| < 1e16.
  if (d != 0 && (exponent < -4 || exponent >= 16))
    return fmt::format("{}e{}{:02d}", text.substr(0, e), exponent < 0 ? '-' : '+', std::abs(exponent));
  std::array<char, 40> fixed;
  const auto end = std::to_chars(fixed.data(), fixed.data() + fixed.size(), d, std::chars_format::fixed);
  std::string out(fixed.data(), end.ptr);
  if (out.find('.') == out.npos) out += ".0";
  return out;
}

std::string to_text(const Value& value) {
  if (value.is_string()) return value.string();
  if (value.is_undefined()) return "";
  return to_repr(value);
}

std::string to_repr(const Value& value) {
  std::string out;
  append_repr(out, value);
  return out;
}

}  // namespace tinyserve::jinja
