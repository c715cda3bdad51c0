#include "text/byte_level.h"

#include <array>

#include "text/unicode.h"

namespace tinyserve {
namespace {

struct Alphabet {
  std::array<char16_t, 256> of_byte{};
  std::array<int16_t, 512> of_char{};
};

constexpr Alphabet make_alphabet() {
  Alphabet a;
  for (auto& byte : a.of_char) byte = -1;
  char16_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    a.of_byte[byte] = itself ? static_cast<char16_t>(byte) : next++;
    a.of_char[a.of_byte[byte]] = static_cast<int16_t>(byte);
  }
  return a;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

char32_t byte_level_char(unsigned char byte) { return kAlphabet.of_byte[byte]; }

std::string to_byte_level(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (unsigned char byte : bytes) unicode::append_char(out, kAlphabet.of_byte[byte]);
  return out;
}

std::optional<std::string> from_byte_level(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += unicode::char_length(text[i])) {
    const char32_t c = unicode::front_char(text.substr(i));
    if (c >= kAlphabet.of_char.size() || kAlphabet.of_char[c] < 0) return std::nullopt;
    out += static_cast<char>(kAlphabet.of_char[c]);
  }
  return out;
}

}  // namespace tinyserve
