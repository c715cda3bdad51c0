#pragma once
#include <string>
#include <string_view>

namespace tinyserve {

/// Standard base64 with padding.
std::string encode_base64(std::string_view bytes);
/// Throws InputError, naming `where`.
std::string decode_base64(std::string_view text, std::string_view where);

}  // namespace tinyserve
