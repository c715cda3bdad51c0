#include "text/jinja/unicode.h"

#include <algorithm>
#include <iterator>

namespace tinyserve::jinja {
namespace {

struct CharRange {
  uint32_t first, last;
};
struct CaseRun {
  uint32_t first, last;
  uint32_t step;
  int32_t delta;
};
struct CaseSpecial {
  uint32_t from;
  uint32_t to[3];  // zero-terminated
};

#include "text/jinja/unicode_tables.inc"

template <size_t n>
bool in_ranges(const CharRange (&ranges)[n], char32_t c) {
  const CharRange* r = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                        [](char32_t x, const CharRange& range) { return x < range.first; });
  return r != std::begin(ranges) && c <= std::prev(r)->last;
}

template <size_t n, size_t m>
void append_mapped(std::string& out, char32_t c, const CaseRun (&runs)[n], const CaseSpecial (&specials)[m]) {
  // Runs may interleave (every second character), so look back a few of them.
  const CaseRun* r = std::upper_bound(std::begin(runs), std::end(runs), c,
                                      [](char32_t x, const CaseRun& run) { return x < run.first; });
  for (int back = 0; back < 3 && r != std::begin(runs); ++back) {
    --r;
    if (c <= r->last && (c - r->first) % r->step == 0) {
      append_char(out, static_cast<char32_t>(static_cast<int64_t>(c) + r->delta));
      return;
    }
  }
  const CaseSpecial* s = std::lower_bound(std::begin(specials), std::end(specials), c,
                                          [](const CaseSpecial& special, char32_t x) { return special.from < x; });
  if (s == std::end(specials) || s->from != c) return append_char(out, c);
  for (uint32_t t : s->to)
    if (t) append_char(out, t);
}

constexpr char32_t kCapitalSigma = 0x3A3, kFinalSigma = 0x3C2;

// The capital sigma is lowered to its final form at the end of a word: a cased letter before, none after.
bool is_final_sigma(std::string_view s, size_t begin, size_t end) {
  bool cased_before = false;
  for (size_t i = begin; i > 0;) {
    size_t p = i - 1;
    while (p > 0 && (static_cast<unsigned char>(s[p]) & 0xC0) == 0x80) --p;
    size_t q = p;
    const char32_t c = next_char(s, q);
    i = p;
    if (in_ranges(kCaseIgnorableRanges, c)) continue;
    cased_before = in_ranges(kCasedRanges, c);
    break;
  }
  if (!cased_before) return false;
  for (size_t i = end; i < s.size();) {
    const char32_t c = next_char(s, i);
    if (in_ranges(kCaseIgnorableRanges, c)) continue;
    return !in_ranges(kCasedRanges, c);
  }
  return true;
}

void append_lower_at(std::string& out, std::string_view s, size_t begin, size_t end, char32_t c) {
  if (c == kCapitalSigma && is_final_sigma(s, begin, end))
    append_char(out, kFinalSigma);
  else
    append_lower(out, c);
}

}  // namespace

int64_t count_chars(std::string_view s) {
  return std::count_if(s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

size_t byte_offset(std::string_view s, int64_t index) {
  size_t i = 0;
  for (; i < s.size(); ++i) {
    if ((static_cast<unsigned char>(s[i]) & 0xC0) == 0x80) continue;
    if (index-- == 0) return i;
  }
  return s.size();
}

char32_t next_char(std::string_view s, size_t& position) {
  const auto byte = [&](size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) & 0x3Fu : 0u; };
  const unsigned char c = s[position];
  size_t length = c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
  const size_t i = position;
  position = std::min(s.size(), position + length);
  switch (length) {
    case 2:
      return (c & 0x1Fu) << 6 | byte(i + 1);
    case 3:
      return (c & 0x0Fu) << 12 | byte(i + 1) << 6 | byte(i + 2);
    case 4:
      return (c & 0x07u) << 18 | byte(i + 1) << 12 | byte(i + 2) << 6 | byte(i + 3);
    default:
      return c;
  }
}

void append_char(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::vector<std::string_view> split_chars(std::string_view s) {
  std::vector<std::string_view> out;
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    next_char(s, i);
    out.push_back(s.substr(begin, i - begin));
  }
  return out;
}

bool is_space(char32_t c) { return in_ranges(kSpaceRanges, c); }
bool is_printable(char32_t c) { return c < 0x7F ? c >= 0x20 : !in_ranges(kUnprintableRanges, c); }
bool is_alpha(char32_t c) { return in_ranges(kAlphaRanges, c); }
bool is_numeric(char32_t c) { return in_ranges(kNumericRanges, c); }
bool is_digit(char32_t c) { return in_ranges(kDigitRanges, c); }
bool is_decimal(char32_t c) { return in_ranges(kDecimalRanges, c); }
bool is_upper(char32_t c) { return in_ranges(kUpperRanges, c); }
bool is_lower(char32_t c) { return in_ranges(kLowerRanges, c); }
bool is_title(char32_t c) { return in_ranges(kTitleRanges, c); }

void append_title(std::string& out, char32_t c) { append_mapped(out, c, kTitleRuns, kTitleSpecials); }
void append_lower(std::string& out, char32_t c) { append_mapped(out, c, kLowerRuns, kLowerSpecials); }

std::string to_upper(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size();) append_mapped(out, next_char(s, i), kUpperRuns, kUpperSpecials);
  return out;
}

std::string to_lower(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    const char32_t c = next_char(s, i);
    append_lower_at(out, s, begin, i, c);
  }
  return out;
}

std::string to_title(std::string_view s) {
  std::string out;
  bool previous_cased = false;
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    const char32_t c = next_char(s, i);
    if (previous_cased)
      append_lower_at(out, s, begin, i, c);
    else
      append_title(out, c);
    previous_cased = in_ranges(kCasedRanges, c);
  }
  return out;
}

std::string to_capitalized(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    const char32_t c = next_char(s, i);
    if (begin == 0)
      append_title(out, c);
    else
      append_lower_at(out, s, begin, i, c);
  }
  return out;
}

std::string to_swapped(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    const char32_t c = next_char(s, i);
    if (is_upper(c))
      append_lower_at(out, s, begin, i, c);
    else if (is_lower(c))
      append_mapped(out, c, kUpperRuns, kUpperSpecials);
    else
      append_char(out, c);
  }
  return out;
}

std::string_view strip(std::string_view s, const std::string_view* chars, bool left, bool right) {
  std::vector<std::string_view> set;
  if (chars) set = split_chars(*chars);
  std::sort(set.begin(), set.end());
  const auto removable = [&](std::string_view ch) {
    if (chars) return std::binary_search(set.begin(), set.end(), ch);
    size_t i = 0;
    return is_space(next_char(ch, i));
  };
  size_t begin = 0, end = s.size();
  while (left && begin < end) {
    size_t i = begin;
    next_char(s, i);
    if (!removable(s.substr(begin, i - begin))) break;
    begin = i;
  }
  while (right && end > begin) {
    size_t i = end - 1;
    while (i > begin && (static_cast<unsigned char>(s[i]) & 0xC0) == 0x80) --i;
    if (!removable(s.substr(i, end - i))) break;
    end = i;
  }
  return s.substr(begin, end - begin);
}

size_t line_break_at(std::string_view s, size_t position) {
  size_t i = position;
  const char32_t c = next_char(s, i);
  if (c == '\r') return i < s.size() && s[i] == '\n' ? 2 : 1;
  if ((c >= 0x0A && c <= 0x0C) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029)
    return i - position;
  return 0;
}

}  // namespace tinyserve::jinja
