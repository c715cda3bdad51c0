#pragma once
#include <optional>
#include <string>

namespace tinyserve::cli {

/// The prompt of a one-shot run: the argument, else the file, else everything on stdin. Nothing when stdin is a terminal.
/// Throws InputError: argument and file together, an unreadable file, nothing in it, more than 64 MiB.
std::optional<std::string> read_prompt(const std::optional<std::string>& argument, const std::string& file, bool stdin_is_terminal);

}  // namespace tinyserve::cli
