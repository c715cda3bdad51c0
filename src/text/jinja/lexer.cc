#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstdlib>

#include "text/jinja/error.h"
#include "text/jinja/limits.h"
#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

bool is_digit_char(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name_char(char c) { return is_name_start(c) || is_digit_char(c); }

// Line breaks become \n, and one at the very end of the template is dropped.
std::string normalise(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& name) : source_(normalise(source)), name_(name) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) lex_root();
    emit(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& message, int line = 0) const {
    throw LocatedError(name_, line ? line : line_, message);
  }
  std::string_view rest() const { return std::string_view(source_).substr(pos_); }
  bool at(std::string_view s) const { return rest().starts_with(s); }

  void emit(TokenType type, std::string text) {
    // A tree cannot have more nodes than the template has tokens; the size of the source bounds both.
    tokens_.push_back({type, line_, std::move(text)});
  }

  void advance(size_t n) {
    for (size_t i = 0; i < n; ++i) line_ += source_[pos_ + i] == '\n';
    pos_ += n;
    if (n) line_starting_ = source_[pos_ - 1] == '\n';
  }

  size_t space_length(size_t from) const {
    const std::string_view tail = std::string_view(source_).substr(from);
    return tail.size() - strip(tail, nullptr, true, false).size();
  }

  // Text up to the next tag, and the tag's opening.
  void lex_root() {
    size_t begin = pos_;
    char kind = 0;
    for (; begin + 1 < source_.size(); ++begin) {
      kind = source_[begin + 1];
      if (source_[begin] == '{' && (kind == '{' || kind == '%' || kind == '#')) break;
    }
    if (begin + 1 >= source_.size()) {
      emit(TokenType::kData, std::string(rest()));
      advance(source_.size() - pos_);
      return;
    }
    const std::string_view data = rest().substr(0, begin - pos_);
    const char sign = begin + 2 < source_.size() ? source_[begin + 2] : 0;
    const bool has_sign = sign == '-' || sign == '+';
    emit_data(data, sign, kind != '{');
    advance(data.size() + 2 + has_sign);
    if (kind == '#') return skip_comment();
    if (kind == '{') {
      emit(TokenType::kVariableBegin, "");
      return lex_tag("}}");
    }
    if (lex_raw()) return;
    emit(TokenType::kBlockBegin, "");
    lex_tag("%}");
  }

  void emit_data(std::string_view data, char sign, bool lstrip) {
    if (sign == '-') {
      data = strip(data, nullptr, false, true);
    } else if (sign != '+' && lstrip) {
      const size_t newline = data.rfind('\n');
      const size_t line_begin = newline == data.npos ? 0 : newline + 1;
      if ((line_begin > 0 || line_starting_) && strip(data.substr(line_begin), nullptr, true, false).empty())
        data = data.substr(0, line_begin);
    }
    if (!data.empty()) emit(TokenType::kData, std::string(data));
  }

  // Moves past the end of a tag of `length` bytes and the white space that its sign or trim_blocks takes away.
  void close(size_t length, bool minus, bool trim_newline) {
    advance(length);
    if (minus)
      advance(space_length(pos_));
    else if (trim_newline && at("\n"))
      advance(1);
  }

  void skip_comment() {
    const size_t end = source_.find("#}", pos_);
    if (end == source_.npos) fail("the comment that starts here has no end '#}'");
    const char sign = end > pos_ ? source_[end - 1] : 0;
    advance(end - pos_);
    close(2, sign == '-', sign != '+');
  }

  // After "{%": if this is {% raw %}, takes everything to {% endraw %} as text.
  bool lex_raw() {
    size_t p = pos_ + space_length(pos_);
    if (source_.compare(p, 3, "raw") != 0) return false;
    p += 3;
    p += space_length(p);
    const bool minus = source_.compare(p, 3, "-%}") == 0;
    if (!minus && source_.compare(p, 2, "%}") != 0) return false;
    const int begin_line = line_;
    advance(p - pos_);
    close(minus ? 3 : 2, minus, false);
    for (size_t tag = source_.find("{%", pos_); tag != source_.npos; tag = source_.find("{%", tag + 2)) {
      size_t q = tag + 2;
      const char sign = q < source_.size() ? source_[q] : 0;
      if (sign == '-' || sign == '+') ++q;
      q += space_length(q);
      if (source_.compare(q, 6, "endraw") != 0) continue;
      q += 6;
      q += space_length(q);
      const char end_sign = q < source_.size() ? source_[q] : 0;
      const size_t signs = end_sign == '-' || end_sign == '+';
      if (source_.compare(q + signs, 2, "%}") != 0) continue;
      emit_data(rest().substr(0, tag - pos_), sign, true);
      advance(q - pos_);
      close(2 + signs, end_sign == '-', end_sign != '+');
      return true;
    }
    fail("the raw block that starts here has no {% endraw %}", begin_line);
  }

  void lex_tag(std::string_view end) {
    const int begin_line = line_;
    const bool block = end == "%}";
    while (true) {
      advance(space_length(pos_));
      if (pos_ >= source_.size()) fail(fmt::format("the tag that starts here has no end '{}'", end), begin_line);
      if (brackets_.empty()) {
        const char sign = source_[pos_];
        const bool minus = sign == '-', plus = sign == '+' && block;
        if ((minus || plus) && std::string_view(source_).substr(pos_ + 1).starts_with(end)) {
          emit(block ? TokenType::kBlockEnd : TokenType::kVariableEnd, "");
          return close(3, minus, false);
        }
        if (at(end)) {
          emit(block ? TokenType::kBlockEnd : TokenType::kVariableEnd, "");
          return close(2, false, block);
        }
      }
      lex_token();
    }
  }

  void lex_token() {
    const char c = source_[pos_];
    if (is_digit_char(c)) return lex_number();
    if (is_name_start(c)) {
      size_t n = 1;
      while (pos_ + n < source_.size() && is_name_char(source_[pos_ + n])) ++n;
      if (pos_ + n < source_.size() && static_cast<unsigned char>(source_[pos_ + n]) >= 0x80)
        fail("names may only have letters of ASCII, digits and underscores");
      emit(TokenType::kName, source_.substr(pos_, n));
      return advance(n);
    }
    if (c == '"' || c == '\'') return lex_string(c);
    static constexpr std::array<std::string_view, 25> kOperators = {"//", "**", "==", "!=", "<=", ">=", "+", "-", "/",
                                                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                    ">",  "<",  "=",  ".",  ":",  "|",  ","};
    for (const std::string_view op : kOperators) {
      if (!at(op)) continue;
      balance(op[0]);
      emit(TokenType::kOperator, std::string(op));
      return advance(op.size());
    }
    size_t i = pos_;
    next_char(source_, i);
    fail(fmt::format("unexpected character '{}'", source_.substr(pos_, i - pos_)));
  }

  void balance(char c) {
    if (c == '(' || c == '[' || c == '{') {
      if (brackets_.size() >= static_cast<size_t>(kMaxParseDepth))
        fail(fmt::format("brackets nest more than {} deep", kMaxParseDepth));
      brackets_ += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty()) fail(fmt::format("unexpected '{}'", c));
      if (brackets_.back() != c) fail(fmt::format("unexpected '{}', expected '{}'", c, brackets_.back()));
      brackets_.pop_back();
    }
  }

  // The length of digits with single underscores between them at `p`.
  size_t digits_at(size_t p, const char* allowed) const {
    size_t n = 0;
    const std::string_view set = allowed;
    while (p + n < source_.size()) {
      const char c = source_[p + n];
      const bool underscore =
          c == '_' && n > 0 && p + n + 1 < source_.size() && set.find(source_[p + n + 1]) != set.npos;
      if (set.find(c) == set.npos && !underscore) break;
      ++n;
    }
    return n;
  }

  void lex_number() {
    static constexpr const char* kDecimal = "0123456789";
    int base = 10;
    size_t prefix = 0, n = 0;
    if (source_[pos_] == '0' && pos_ + 1 < source_.size()) {
      const char x = source_[pos_ + 1] | 0x20;
      base = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 10;
      if (base != 10) {
        n = digits_at(pos_ + 2, base == 16 ? "0123456789abcdefABCDEF" : base == 8 ? "01234567" : "01");
        prefix = n ? 2 : 0;
        if (!n) base = 10;
      }
    }
    if (!prefix) n = digits_at(pos_, kDecimal);
    size_t end = pos_ + prefix + n;
    bool is_float = false;
    // "x.0.1" indexes twice, so digits right after a dot are never the start of a float.
    if (!prefix && !(pos_ > 0 && source_[pos_ - 1] == '.')) {
      size_t p = end;
      if (p < source_.size() && source_[p] == '.') {
        const size_t fraction = digits_at(p + 1, kDecimal);
        if (fraction) p += 1 + fraction, is_float = true;
      }
      if (p < source_.size() && (source_[p] == 'e' || source_[p] == 'E')) {
        size_t q = p + 1;
        if (q < source_.size() && (source_[q] == '+' || source_[q] == '-')) ++q;
        const size_t exponent = digits_at(q, kDecimal);
        if (exponent) p = q + exponent, is_float = true;
      }
      if (is_float) end = p;
    }
    if (!prefix && !is_float && source_[pos_] == '0' && n > 1) {
      const std::string_view digits = std::string_view(source_).substr(pos_, n);
      if (digits.find_first_not_of("0_") != digits.npos) fail("a number may not start with 0");
    }
    std::string text;
    for (size_t i = pos_ + prefix; i < end; ++i)
      if (source_[i] != '_') text += source_[i];
    emit(is_float ? TokenType::kFloat : TokenType::kInteger, text);
    Token& token = tokens_.back();
    if (is_float) {
      token.number = std::strtod(text.c_str(), nullptr);
    } else {
      const auto result = std::from_chars(text.data(), text.data() + text.size(), token.integer, base);
      if (result.ec != std::errc()) fail(fmt::format("the number {} does not fit 64 bits", text));
    }
    advance(end - pos_);
  }

  void lex_string(char quote) {
    size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("the string that starts here has no closing quote");
    const std::string_view body = std::string_view(source_).substr(pos_ + 1, end - pos_ - 1);
    emit(TokenType::kString, unescape(body));
    advance(end + 1 - pos_);
  }

  char32_t hex(std::string_view body, size_t& i, size_t length) const {
    uint32_t value = 0;
    const char* begin = body.data() + std::min(i, body.size());
    const char* end = body.data() + std::min(i + length, body.size());
    const auto result = std::from_chars(begin, end, value, 16);
    if (result.ptr != begin + length) fail(fmt::format("an escape in a string needs {} hexadecimal digits", length));
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
      fail("an escape in a string is not a Unicode character");
    i += length;
    return value;
  }

  std::string unescape(std::string_view body) const {
    std::string out;
    for (size_t i = 0; i < body.size();) {
      if (body[i] != '\\') {
        out += body[i++];
        continue;
      }
      const char c = body[i + 1];  // the scan for the closing quote left a character after each backslash
      i += 2;
      switch (c) {
        case '\n':
          break;
        case '\\':
        case '\'':
        case '"':
          out += c;
          break;
        case 'a':
          out += '\a';
          break;
        case 'b':
          out += '\b';
          break;
        case 'f':
          out += '\f';
          break;
        case 'n':
          out += '\n';
          break;
        case 'r':
          out += '\r';
          break;
        case 't':
          out += '\t';
          break;
        case 'v':
          out += '\v';
          break;
        case 'x':
          append_char(out, hex(body, i, 2));
          break;
        case 'u':
          append_char(out, hex(body, i, 4));
          break;
        case 'U':
          append_char(out, hex(body, i, 8));
          break;
        case 'N':
          fail("the escape \\N{...} is not supported; write the character itself");
        default:
          if (c >= '0' && c <= '7') {
            uint32_t value = c - '0';
            for (int k = 0; k < 2 && i < body.size() && body[i] >= '0' && body[i] <= '7'; ++k)
              value = value * 8 + (body[i++] - '0');
            append_char(out, value);
          } else {
            out += '\\';
            out += c;
          }
      }
    }
    return out;
  }

  const std::string source_;
  const std::string& name_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::string brackets_;  ///< the closing brackets still expected
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& name) {
  if (source.size() > kMaxTemplateBytes)
    throw InputError(fmt::format("{} has {} bytes, more than the limit of {}", name, source.size(), kMaxTemplateBytes));
  return Lexer(source, name).run();
}

}  // namespace tinyserve::jinja
