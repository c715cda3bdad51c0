// From Oniguruma's Ruby syntax, which tokenizer files use, to PCRE2's.

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include "base/error.h"
#include "text/regex.h"
#include "text/unicode.h"
#include "text/unicode_tables.h"

namespace tinyserve {
namespace {

void append_ranges(std::string& out, std::span<const unicode::CodeRange> ranges) {
  for (const auto& r : ranges) {
    fmt::format_to(std::back_inserter(out), "\\x{{{:X}}}", static_cast<uint32_t>(r.first));
    if (r.last != r.first) fmt::format_to(std::back_inserter(out), "-\\x{{{:X}}}", static_cast<uint32_t>(r.last));
  }
}

// What stands inside [...] for a general category.
std::string category_items(std::string_view name) {
  std::string out = fmt::format("\\p{{{}}}", name);
  for (const auto& category : unicode::kRegexCategories)
    if (category.name == name) append_ranges(out, category.more);
  return out;
}

std::string space_items() {
  std::string out;
  append_ranges(out, unicode::kWhitespace);
  return out;
}

std::string not_space_items() {
  std::vector<unicode::CodeRange> gaps;
  char32_t next = 0;
  for (const auto& r : unicode::kWhitespace) {
    if (r.first > next) gaps.push_back({next, r.first - 1});
    next = r.last + 1;
  }
  gaps.push_back({next, 0x10FFFF});
  std::string out;
  append_ranges(out, gaps);
  return out;
}

std::string alphabetic_items() {
  std::string out = "\\p{Alphabetic}";
  append_ranges(out, unicode::kRegexAlphabetic);
  return out;
}

std::string word_items() {
  std::string out = "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}";
  append_ranges(out, unicode::kRegexWordExtra);
  return out;
}

// What stands inside [...] for \p{name} or [:name:]; "" for a name that has no such list.
std::string property_items(std::string_view name) {
  std::string key;
  for (char c : name)
    if (c != ' ' && c != '_' && c != '-') key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  static constexpr std::pair<std::string_view, std::string_view> kLongNames[] = {
      {"letter", "l"}, {"mark", "m"}, {"number", "n"}, {"punctuation", "p"}, {"symbol", "s"}, {"separator", "z"},
      {"other", "c"}, {"uppercaseletter", "lu"}, {"lowercaseletter", "ll"}, {"titlecaseletter", "lt"},
      {"modifierletter", "lm"}, {"otherletter", "lo"}, {"decimalnumber", "nd"}, {"nonspacingmark", "mn"}};
  for (const auto& [name_long, name_short] : kLongNames)
    if (key == name_long) key = name_short;
  if (key == "alpha" || key == "alphabetic") return alphabetic_items();
  if (key == "alnum") return alphabetic_items() + category_items("Nd");
  if (key == "digit") return category_items("Nd");
  if (key == "upper" || key == "uppercase") return "\\p{Uppercase}" + category_items("Lu");
  if (key == "lower" || key == "lowercase") return "\\p{Lowercase}" + category_items("Ll");
  if (key == "space" || key == "whitespace") return space_items();
  if (key == "word") return word_items();
  if (key == "any") return "\\p{Any}";
  if (key == "ascii") return "\\x{0}-\\x{7F}";
  if (key == "han") {
    std::string out;
    append_ranges(out, unicode::kRegexHan);
    return out;
  }
  if (!key.empty() && key.size() <= 2 && std::string_view("lmnpszc").find(key[0]) != std::string_view::npos) {
    key[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(key[0])));
    return category_items(key);
  }
  return "";
}

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view what) : in_(pattern), what_(what) {}

  std::string run() {
    if (!unicode::is_valid_utf8(in_)) fail("is not valid UTF-8");
    while (at_ < in_.size()) step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(std::string_view why) const {
    throw InputError(fmt::format("{}: the pattern {:?} {} (near byte {})", what_, in_.substr(0, 200), why, at_));
  }
  char peek(size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

  void begin_atom() { atom_ = out_.size(); }

  void step() {
    switch (const char c = in_[at_]) {
      case '\\': begin_atom(); return escape(false);
      case '[': begin_atom(); return char_class();
      case '(': return open_group();
      case ')':
        if (groups_.empty()) fail("closes a group that it did not open");
        out_ += c, ++at_;
        atom_ = groups_.back();
        groups_.pop_back();
        return;
      case '{': return interval();
      case '*': case '+': case '?': case '|': case '^': case '$':
        out_ += c, ++at_;
        return;
      default:
        begin_atom();
        const size_t n = unicode::char_length(c);
        out_.append(in_, at_, n);
        at_ += n;
    }
  }

  void open_group() {
    groups_.push_back(out_.size());
    out_ += '(', ++at_;
    if (peek() == '*') fail("has a (*...) verb, which is not supported");
    if (peek() != '?') return;
    out_ += '?', ++at_;
    const char c = peek();
    if (c == ':' || c == '=' || c == '!' || c == '>' || c == '<' || c == '#') {
      if (c == '#') fail("has a comment, which is not supported");
      return;  // the rest is the same in both
    }
    // Options: i, x, m (in Ruby the dot matches a newline, PCRE2's s), switched on and off.
    while (at_ < in_.size() && peek() != ':' && peek() != ')') {
      const char option = peek();
      if (option != 'i' && option != 'm' && option != '-') fail("has a group or option that is not supported");
      out_ += option == 'm' ? 's' : option;
      ++at_;
    }
  }

  // {n}, {n,}, {,m}, {n,m}; anything else is text.
  void interval() {
    size_t i = at_ + 1;
    const auto digits = [&] {
      const size_t begin = i;
      while (i < in_.size() && std::isdigit(static_cast<unsigned char>(in_[i]))) ++i;
      return in_.substr(begin, i - begin);
    };
    const auto low = digits();
    const bool comma = i < in_.size() && in_[i] == ',';
    if (comma) ++i;
    const auto high = comma ? digits() : std::string_view{};
    if (i >= in_.size() || in_[i] != '}' || (low.empty() && high.empty())) {
      begin_atom();
      out_ += "\\{", ++at_;
      return;
    }
    if (low.size() > 6 || high.size() > 6) fail("has a repeat count that is too large");
    at_ = i + 1;
    fmt::format_to(std::back_inserter(out_), "{{{}{}{}}}", low.empty() ? "0" : low, comma ? "," : "", high);
    // In Ruby {n,m}+ repeats the repeat and {n}? makes it optional, where PCRE2 would read possessive and lazy.
    if (peek() == '+' || (peek() == '?' && !comma)) {
      out_.insert(atom_, "(?:");
      out_ += ')';
      out_ += peek();
      ++at_;
    }
  }

  void one_char(uint32_t code) {
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) fail("names a code point that does not exist");
    fmt::format_to(std::back_inserter(out_), "\\x{{{:X}}}", code);
  }

  uint32_t hex(size_t max_digits) {
    uint32_t value = 0;
    size_t n = 0;
    for (; n < max_digits && std::isxdigit(static_cast<unsigned char>(peek())); ++n, ++at_)
      value = value * 16 + (std::isdigit(static_cast<unsigned char>(peek())) ? peek() - '0' : (peek() | 32) - 'a' + 10);
    if (n == 0) fail("has an escape without hexadecimal digits");
    return value;
  }

  // Emits a class item, in brackets of its own unless we are inside some.
  void items(const std::string& list, bool in_class, bool negated = false) {
    if (in_class && negated) fail("has a negated class inside a class that is not supported");
    out_ += in_class ? list : fmt::format("[{}{}]", negated ? "^" : "", list);
  }

  void property(bool in_class, bool negated) {
    if (peek() != '{') fail("has \\p without braces");
    const size_t close = in_.find('}', at_);
    if (close == std::string_view::npos) fail("does not close \\p{");
    std::string_view name = in_.substr(at_ + 1, close - at_ - 1);
    if (!name.empty() && name[0] == '^') negated = !negated, name.remove_prefix(1);
    if (name.empty() || name.size() > 40 || !std::all_of(name.begin(), name.end(), [](unsigned char c) {
          return std::isalnum(c) || c == '_' || c == ' ' || c == '-';
        }))
      fail("has an unknown \\p{...}");
    at_ = close + 1;
    const std::string list = property_items(name);
    if (in_class && negated) {
      // Cannot subtract inside brackets: the library's own tables decide on the newest characters.
      if (!list.starts_with("\\p{") || name.size() > 2) fail("has a negated property inside a class that is not supported");
      out_ += fmt::format("\\P{{{}}}", name);
    } else {
      items(list.empty() ? fmt::format("\\p{{sc:{}}}", name) : list, in_class, negated);
    }
  }

  void escape(bool in_class) {
    ++at_;
    if (at_ >= in_.size()) fail("ends in a backslash");
    const char c = in_[at_];
    const size_t n = unicode::char_length(c);
    at_ += n;
    switch (c) {
      case 's': return items(space_items(), in_class);
      case 'S': return in_class ? items(not_space_items(), true) : items(space_items(), false, true);
      case 'd': return items(category_items("Nd"), in_class);
      case 'D': return in_class ? items("\\P{Nd}", true) : items(category_items("Nd"), false, true);
      case 'w': return items(word_items(), in_class);
      case 'W': return items(word_items(), in_class, true);
      case 'h': return items("0-9A-Fa-f", in_class);
      case 'H': return items("0-9A-Fa-f", in_class, true);
      case 'p': return property(in_class, false);
      case 'P': return property(in_class, true);
      case 'v': return one_char(0x0B);
      case 'u': return one_char(hex(4));
      case 'x': {
        const bool braces = peek() == '{';
        if (braces) ++at_;
        const uint32_t code = hex(braces ? 8 : 2);
        if (braces && peek() != '}') fail("does not close \\x{");
        if (braces) ++at_;
        if (!braces && code >= 0x80) fail("names a byte above 7F, which is not a character");
        return one_char(code);
      }
      case 'b': case 'B': {
        if (in_class) {
          if (c == 'B') break;
          return one_char(0x08);
        }
        const std::string word = "[" + word_items() + "]";
        const char* form = c == 'b' ? "(?:(?<={0})(?!{0})|(?<!{0})(?={0}))" : "(?:(?<={0})(?={0})|(?<!{0})(?!{0}))";
        out_ += fmt::format(fmt::runtime(form), word);
        return;
      }
      case 'n': case 'r': case 't': case 'f': case 'a': case 'e':
        out_ += '\\', out_ += c;
        return;
      case 'A': case 'z': case 'Z': case 'G': case 'R': case 'X':
        if (in_class) break;
        out_ += '\\', out_ += c;
        return;
      default:
        if (static_cast<unsigned char>(c) < 0x80 && std::isalnum(static_cast<unsigned char>(c))) break;
        if (n == 1) out_ += '\\';
        out_.append(in_, at_ - n, n);
        return;
    }
    fail(fmt::format("has the escape \\{}, which is not supported", c));
  }

  void char_class() {
    out_ += '[', ++at_;
    if (peek() == '^') out_ += '^', ++at_;
    if (peek() == ']') out_ += "\\]", ++at_;
    while (true) {
      if (at_ >= in_.size()) fail("does not close a class");
      const char c = peek();
      if (c == ']') {
        out_ += c, ++at_;
        return;
      }
      if (c == '\\') {
        escape(true);
      } else if (c == '[') {
        const size_t close = peek(1) == ':' ? in_.find(":]", at_ + 2) : std::string_view::npos;
        if (close == std::string_view::npos) fail("has a class inside a class, which is not supported");
        std::string_view name = in_.substr(at_ + 2, close - at_ - 2);
        const std::string list = property_items(name);
        if (list.empty() || name.size() < 3) fail("has an unknown [:...:]");
        items(list, true);
        at_ = close + 2;
      } else if (c == '&' && peek(1) == '&') {
        fail("has an intersection of classes (&&), which is not supported");
      } else {
        const size_t n = unicode::char_length(c);
        out_.append(in_, at_, n);
        at_ += n;
      }
    }
  }

  std::string_view in_, what_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;             // where the last atom begins in out_
  std::vector<size_t> groups_;  // where each open group begins in out_
};

}  // namespace

std::string translate_regex(std::string_view pattern, std::string_view what) { return Translator(pattern, what).run(); }

std::string escape_regex(std::string_view literal) {
  std::string out;
  for (char c : literal) {
    if (static_cast<unsigned char>(c) < 0x80 && !std::isalnum(static_cast<unsigned char>(c))) {
      // In hexadecimal: a control character behind a backslash would not be itself.
      fmt::format_to(std::back_inserter(out), "\\x{{{:X}}}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace tinyserve
