#pragma once
#include <string>
#include <string_view>

namespace tinyserve {

/// `text` from a file in quotes, fit for a message: cut after 200 bytes, control characters written as \xNN, so that a
/// hostile name neither floods nor steers a terminal.
std::string in_quotes(std::string_view text);

}  // namespace tinyserve
