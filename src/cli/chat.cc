#include "cli/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace tinyserve::cli {
namespace {

constexpr const char* kHelp =
    "  /system TEXT   start anew with this system message (none: without one)\n"
    "  /reset         forget the conversation, keep the system message\n"
    "  /help          this list\n"
    "  /exit          leave, as Ctrl-D and Ctrl-C on an empty line do\n"
    "Ctrl-C while an answer runs stops the answer. A line that begins with // is sent with one slash.\n";

class Chat {
 public:
  Chat(const std::string& system, const AnswerChat& answer, const WriteText& write)
      : system_(system), answer_(answer), write_(write) {
    reset();
  }

  /// False when the person wants to leave.
  bool handle(std::string line) {
    if (line.empty()) return true;
    if (line.starts_with("//")) {
      line.erase(0, 1);
    } else if (line[0] == '/') {
      return command(line);
    }
    say(line);
    return true;
  }

 private:
  void reset() {
    messages_ = OrderedJson::array();
    if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
  }

  bool command(const std::string& line) {
    const size_t name_end = std::min(line.find(' '), line.size());
    const std::string name = line.substr(0, name_end);
    const std::string rest = line.substr(std::min(line.find_first_not_of(' ', name_end), line.size()));
    if (name == "/exit" || name == "/quit") return false;
    if (name == "/help") {
      write_(kHelp);
    } else if (name == "/reset") {
      reset();
      write_("The conversation is forgotten.\n");
    } else if (name == "/system") {
      system_ = rest;
      reset();
      write_(rest.empty() ? "No system message; the conversation starts anew.\n"
                          : "System message set; the conversation starts anew.\n");
    } else {
      write_(fmt::format("There is no command {}; /help lists them.\n", name));
    }
    return true;
  }

  void say(const std::string& text) {
    messages_.push_back({{"role", "user"}, {"content", text}});
    try {
      const Answer answer = answer_(messages_);
      // What was said before Ctrl-C is part of the conversation; an answer of nothing would upset some templates.
      if (answer.text.empty()) {
        messages_.erase(messages_.size() - 1);
      } else {
        messages_.push_back({{"role", "assistant"}, {"content", answer.text}});
      }
    } catch (const InputError& e) {
      messages_.erase(messages_.size() - 1);
      write_(fmt::format("error: {}\n", e.what()));
    }
  }

  std::string system_;
  const AnswerChat& answer_;
  const WriteText& write_;
  OrderedJson messages_;
};

}  // namespace

int run_chat(LineReader& reader, const std::string& system, const AnswerChat& answer, const WriteText& write) {
  Chat chat(system, answer, write);
  for (;;) {
    Line line = reader.read();
    if (line.kind == Line::kCancelled) continue;
    if (line.kind != Line::kText) break;
    if (!chat.handle(std::move(line.text))) break;
  }
  write("\n");
  return 0;
}

}  // namespace tinyserve::cli
