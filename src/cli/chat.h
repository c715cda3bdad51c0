#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "cli/answer.h"
#include "cli/line_reader.h"

namespace tinyserve::cli {

/// Answers a conversation, writing the text as it comes. Throws InputError (too long, refused by the chat template).
using AnswerChat = std::function<Answer(const OrderedJson& messages)>;
using WriteText = std::function<void(std::string_view)>;

/// The interactive conversation: reads a line, answers it, keeps both. Lines that begin with a slash are commands.
/// Returns the exit code when the person leaves (Ctrl-D, Ctrl-C on an empty line, /exit).
int run_chat(LineReader& reader, const std::string& system, const AnswerChat& answer, const WriteText& write);

}  // namespace tinyserve::cli
