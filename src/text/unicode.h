#pragma once
// UTF-8 and the character classes that tokenizers need. Text here is valid UTF-8 unless said otherwise.

#include <cstddef>
#include <string>
#include <string_view>

namespace tinyserve::unicode {

/// Whether `text` is valid UTF-8 (no surrogates, nothing above U+10FFFF, no overlong forms).
bool is_valid_utf8(std::string_view text);

/// `text` with every ill-formed sequence replaced by U+FFFD, one per maximal subpart (Unicode 15, section 3.9,
/// table 3-8), which is what Python's errors="replace" and Rust's from_utf8_lossy do. Returns `text` itself when it is
/// valid already; else a view into `storage`.
std::string_view replace_invalid_utf8(std::string_view text, std::string& storage);

/// `text` with every byte that is not part of a well-formed sequence replaced by a U+FFFD of its own.
std::string replace_invalid_bytes(std::string_view text);

/// Bytes of the character whose first byte is `lead`. Valid text only.
inline size_t char_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The character at the front of `text`, which is valid and not empty.
inline char32_t front_char(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
  switch (char_length(text[0])) {
    case 1: return byte(0);
    case 2: return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3: return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default: return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

/// Index of the first byte of the character that ends just before `end` (> 0).
inline size_t previous_char(std::string_view text, size_t end) {
  do --end;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

size_t count_chars(std::string_view text);
void append_char(std::string& out, char32_t c);

bool is_whitespace(char32_t c);
bool is_numeric(char32_t c);
bool is_punctuation(char32_t c);
bool is_combining_mark(char32_t c);
bool is_word(char32_t c);

}  // namespace tinyserve::unicode
