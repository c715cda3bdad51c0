#include "text/unicode_normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <span>
#include <vector>

#include "base/check.h"
#include "text/unicode.h"
#include "text/unicode_tables.h"

namespace tinyserve::unicode {
namespace {

constexpr int kMaxDecomposed = 32;  // U+FDFA, the longest, gives 18 characters

bool contains(std::span<const CodeRange> ranges, char32_t c) {
  auto it = std::upper_bound(ranges.begin(), ranges.end(), c, [](char32_t x, const CodeRange& r) { return x < r.first; });
  return it != ranges.begin() && c <= std::prev(it)->last;
}

// Smallest character that a form may change or that has a combining class.
char32_t first_affected(NormalForm form) {
  switch (form) {
    case NormalForm::kNfc: return 0x300;
    case NormalForm::kNfd: return 0xC0;
    default: return 0xA0;
  }
}

int combining_class(utf8proc_int32_t c) {
  return c < 0x300 || contains(kNotNormalized, c) ? 0 : utf8proc_get_property(c)->combining_class;
}

void decompose(std::string_view text, bool compat, std::vector<utf8proc_int32_t>& out) {
  const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0);
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += char_length(text[i])) {
    const char32_t c = front_char(text.substr(i));
    if (c < 0xA0 || contains(kNotNormalized, c)) {
      out.push_back(c);
      continue;
    }
    utf8proc_int32_t buffer[kMaxDecomposed];
    int boundary = 0;
    const auto n = utf8proc_decompose_char(c, buffer, kMaxDecomposed, static_cast<utf8proc_option_t>(options), &boundary);
    TS_CHECK(n >= 0 && n <= kMaxDecomposed, "a character decomposes into too many");
    out.insert(out.end(), buffer, buffer + n);
  }
  // Canonical ordering: within a run of non-starters, stable by combining class.
  for (size_t i = 0; i < out.size();) {
    if (combining_class(out[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i + 1;
    while (end < out.size() && combining_class(out[end]) != 0) ++end;
    if (end - i > 1)
      std::stable_sort(out.begin() + i, out.begin() + end,
                       [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
}

// Composes buffer[begin, end) and appends it to `out`. None of it is in kNotNormalized, so a character from there in
// the result is one that the package could not have composed: it is taken apart again.
void compose(std::span<utf8proc_int32_t> buffer, std::string& out) {
  const auto n = utf8proc_normalize_utf32(buffer.data(), buffer.size(),
                                          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  TS_CHECK(n >= 0, "composition of decomposed text failed");
  for (auto c : buffer.first(n)) {
    if (c >= 0xA0 && contains(kNotNormalized, c)) {
      utf8proc_int32_t parts[kMaxDecomposed];
      int boundary = 0;
      const auto k = utf8proc_decompose_char(c, parts, kMaxDecomposed,
                                             static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
      for (int i = 0; i < k; ++i) append_char(out, parts[i]);
    } else {
      append_char(out, c);
    }
  }
}

}  // namespace

std::string normalize(std::string_view text, NormalForm form) {
  // Most text is not affected at all.
  const char32_t affected = first_affected(form);
  bool plain = true;
  for (size_t i = 0; plain && i < text.size(); i += char_length(text[i])) {
    plain = static_cast<unsigned char>(text[i]) < 0x80 || front_char(text.substr(i)) < affected;
  }
  if (plain) return std::string(text);

  std::vector<utf8proc_int32_t> chars;
  decompose(text, form == NormalForm::kNfkc || form == NormalForm::kNfkd, chars);
  std::string out;
  out.reserve(text.size());
  if (form == NormalForm::kNfd || form == NormalForm::kNfkd) {
    for (auto c : chars) append_char(out, c);
    return out;
  }
  size_t begin = 0;
  for (size_t i = 0; i <= chars.size(); ++i) {
    if (i < chars.size() && !(chars[i] >= 0xA0 && contains(kNotNormalized, chars[i]))) continue;
    compose(std::span(chars).subspan(begin, i - begin), out);
    if (i < chars.size()) append_char(out, chars[i]);
    begin = i + 1;
  }
  return out;
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const char32_t c = front_char(text.substr(i));
    i += char_length(text[i]);
    if (c < 0x80) {
      out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    } else if (c == 0x130) {
      out += "i\xCC\x87";  // the one character whose full lower case has two characters
    } else if (auto it = std::lower_bound(kLower.begin(), kLower.end(), c,
                                          [](const LowerPair& p, char32_t x) { return p.upper < x; });
               it != kLower.end() && it->upper == c) {
      append_char(out, it->lower);
    } else {
      append_char(out, utf8proc_tolower(c));
    }
  }
  return out;
}

size_t grapheme_length(std::string_view text) {
  if (text.empty()) return 0;
  size_t end = char_length(text[0]);
  char32_t previous = front_char(text);
  utf8proc_int32_t state = 0;
  while (end < text.size()) {
    const char32_t next = front_char(text.substr(end));
    const bool extends = next >= 0x300 && contains(kExtend, next);
    // An extender that the library does not know yet behaves as one that it does (U+0300).
    if (utf8proc_grapheme_break_stateful(previous, extends ? 0x300 : next, &state)) break;
    previous = extends ? 0x300 : next;
    end += char_length(text[end]);
  }
  return end;
}

}  // namespace tinyserve::unicode
