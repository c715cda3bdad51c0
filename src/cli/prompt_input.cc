#include "cli/prompt_input.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/mapped_file.h"

namespace tinyserve::cli {
namespace {

constexpr size_t kMaxPromptBytes = size_t{64} << 20;

std::string read_stdin() {
  std::string text;
  char piece[65536];
  for (;;) {
    const ssize_t n = ::read(STDIN_FILENO, piece, sizeof piece);
    if (n == 0) return text;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw InputError(fmt::format("stdin: {}", std::strerror(errno)));
    text.append(piece, static_cast<size_t>(n));
    if (text.size() > kMaxPromptBytes) throw InputError(fmt::format("stdin: more than {} bytes", kMaxPromptBytes));
  }
}

/// A final newline comes from the editor or from echo, not from the person who asks.
std::string without_last_newline(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

}  // namespace

std::optional<std::string> read_prompt(const std::optional<std::string>& argument, const std::string& file, bool stdin_is_terminal) {
  if (argument && !file.empty()) throw InputError("a prompt as argument and --file are two prompts; give one");
  std::optional<std::string> prompt;
  std::string source = "the prompt";
  if (argument) {
    prompt = argument;
  } else if (!file.empty()) {
    source = "--file " + file;
    prompt = without_last_newline(read_text_file(file, kMaxPromptBytes));
  } else if (!stdin_is_terminal) {
    source = "stdin";
    prompt = without_last_newline(read_stdin());
  }
  if (prompt && prompt->empty()) throw InputError(source + ": the prompt is empty");
  return prompt;
}

}  // namespace tinyserve::cli
