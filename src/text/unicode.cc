#include "text/unicode.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "text/unicode_tables.h"

namespace tinyserve::unicode {
namespace {

bool contains(std::span<const CodeRange> ranges, char32_t c) {
  auto it = std::upper_bound(ranges.begin(), ranges.end(), c, [](char32_t x, const CodeRange& r) { return x < r.first; });
  return it != ranges.begin() && c <= std::prev(it)->last;
}

// Length of the well-formed sequence at p, or minus the length (>= 1) of the maximal subpart of an ill-formed one.
int scan_sequence(const unsigned char* p, const unsigned char* end) {
  const unsigned char lead = *p;
  if (lead < 0x80) return 1;
  int length = 0;
  unsigned char low = 0x80, high = 0xBF;  // of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return -1;
  }
  for (int i = 1; i < length; ++i) {
    if (p + i >= end || p[i] < low || p[i] > high) return -i;
    low = 0x80, high = 0xBF;
  }
  return length;
}

// First index at or after `from` where the text is not well-formed; size() when there is none.
size_t find_invalid(std::string_view text, size_t from) {
  const auto* begin = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = begin + text.size();
  const auto* p = begin + from;
  while (p < end) {
    if (end - p >= 8) {
      uint64_t word;
      std::memcpy(&word, p, 8);
      if ((word & 0x8080808080808080u) == 0) {
        p += 8;
        continue;
      }
    }
    const int n = scan_sequence(p, end);
    if (n < 0) return p - begin;
    p += n;
  }
  return text.size();
}

}  // namespace

bool is_valid_utf8(std::string_view text) { return find_invalid(text, 0) == text.size(); }

std::string_view replace_invalid_utf8(std::string_view text, std::string& storage) {
  size_t bad = find_invalid(text, 0);
  if (bad == text.size()) return text;
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  storage.clear();
  storage.reserve(text.size() + 16);
  size_t done = 0;
  while (bad < text.size()) {
    storage.append(text, done, bad - done);
    storage += "\xEF\xBF\xBD";
    done = bad - scan_sequence(bytes + bad, bytes + text.size());
    bad = find_invalid(text, done);
  }
  storage.append(text, done);
  return storage;
}

std::string replace_invalid_bytes(std::string_view text) {
  std::string out;
  size_t done = 0;
  for (size_t bad = find_invalid(text, 0); bad < text.size(); bad = find_invalid(text, done)) {
    out.append(text, done, bad - done);
    out += "\xEF\xBF\xBD";
    done = bad + 1;
  }
  return out.append(text, done);
}

size_t count_chars(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
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

bool is_whitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return contains(kWhitespace, c);
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return contains(kNumeric, c);
}

bool is_punctuation(char32_t c) { return contains(kPunctuation, c); }
bool is_combining_mark(char32_t c) { return c >= 0x300 && contains(kCombiningMark, c); }
bool is_word(char32_t c) { return contains(kWord, c); }

}  // namespace tinyserve::unicode
