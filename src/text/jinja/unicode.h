#pragma once
// UTF-8 strings seen as Python sees str: by code point. All functions take valid UTF-8 (JSON and template sources are
// checked before) and stay inside the string for anything else.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tinyserve::jinja {

int64_t count_chars(std::string_view s);
/// Byte offset of character `index`; s.size() when the string is shorter.
size_t byte_offset(std::string_view s, int64_t index);
/// Reads the character at `position` and moves past it.
char32_t next_char(std::string_view s, size_t& position);
void append_char(std::string& out, char32_t c);
std::vector<std::string_view> split_chars(std::string_view s);

bool is_space(char32_t c);      ///< str.isspace()
bool is_printable(char32_t c);  ///< str.isprintable(): others are escaped by repr()
bool is_alpha(char32_t c);
bool is_numeric(char32_t c);  ///< isnumeric(): decimals, digits, fractions, numerals
bool is_digit(char32_t c);    ///< isdigit(): decimals and digits such as superscripts
bool is_decimal(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);
bool is_title(char32_t c);

/// str.upper(), str.lower(), str.title(), str.capitalize(), str.swapcase(), with the full mappings of Unicode.
std::string to_upper(std::string_view s);
std::string to_lower(std::string_view s);
std::string to_title(std::string_view s);
std::string to_capitalized(std::string_view s);
std::string to_swapped(std::string_view s);
/// Title mapping of one character, appended.
void append_title(std::string& out, char32_t c);
void append_lower(std::string& out, char32_t c);

/// strip(): removes characters of `chars` (white space when null) from the chosen ends.
std::string_view strip(std::string_view s, const std::string_view* chars, bool left, bool right);
/// The start of the line break at `position` (as str.splitlines sees them), its length in bytes, or 0.
size_t line_break_at(std::string_view s, size_t position);

}  // namespace tinyserve::jinja
