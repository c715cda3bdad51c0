#pragma once
// GPT-2's alphabet: each byte as a printable character (openai/gpt-2, src/encoder.py, bytes_to_unicode).

#include <optional>
#include <string>
#include <string_view>

namespace tinyserve {

/// The character of a byte: itself for 21-7E, A1-AC, AE-FF (hexadecimal); the others, in order, are U+0100 and on.
char32_t byte_level_char(unsigned char byte);
/// `bytes` with every byte as its character, in UTF-8.
std::string to_byte_level(std::string_view bytes);
/// The bytes of a string of such characters; nothing when one is not in the alphabet.
std::optional<std::string> from_byte_level(std::string_view text);

}  // namespace tinyserve
