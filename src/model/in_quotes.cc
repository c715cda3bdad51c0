#include "model/in_quotes.h"

#include <fmt/format.h>

namespace tinyserve {

std::string in_quotes(std::string_view text) {
  constexpr size_t kLongest = 200;
  const bool cut = text.size() > kLongest;
  if (cut) {
    size_t end = kLongest;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0u) == 0x80u) --end;  // not inside a character
    text = text.substr(0, end);
  }
  std::string out = "'";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  return out + (cut ? "...'" : "'");
}

}  // namespace tinyserve
