#include "cli/line_reader.h"

#include <histedit.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cwchar>

namespace tinyserve::cli {
namespace {

constexpr int kHistoryLines = 1000;

class TerminalReader final : public LineReader {
 public:
  explicit TerminalReader(const std::string& prompt) : prompt_(prompt) {
    // Editing moves by character, which needs to know that the terminal speaks UTF-8 even under LANG=C.
    if (!std::setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
    edit_ = el_init("tinyserve", stdin, stdout, stderr);
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, kHistoryLines);
    history(history_, &event, H_SETUNIQUE, 1);
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_PROMPT, +[](EditLine* e) { return const_cast<char*>(self(e)->prompt_.c_str()); });
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_SIGNAL, 0);
    el_set(edit_, EL_HIST, history, history_);
    el_set(edit_, EL_GETCFN, +[](EditLine* e, wchar_t* out) { return self(e)->read_character(out); });
  }

  ~TerminalReader() override {
    history_end(history_);
    el_end(edit_);
  }

  Line read() override {
    interrupted_ = false;
    int count = 0;
    const char* text = el_gets(edit_, &count);
    if (interrupted_) {
      std::fputs("^C\n", stdout);
      std::fflush(stdout);
      el_set(edit_, EL_REFRESH);
      return {had_text_ ? Line::kCancelled : Line::kLeave, {}};
    }
    if (!text || count <= 0) return {Line::kEnd, {}};
    Line line{Line::kText, std::string(text, static_cast<size_t>(count))};
    while (!line.text.empty() && (line.text.back() == '\n' || line.text.back() == '\r')) line.text.pop_back();
    if (!line.text.empty()) {
      HistEvent event;
      history(history_, &event, H_ENTER, line.text.c_str());
    }
    return line;
  }

 private:
  static TerminalReader* self(EditLine* edit) {
    TerminalReader* reader = nullptr;
    el_get(edit, EL_CLIENTDATA, &reader);
    return reader;
  }

  /// 1: a character, 0: end, -1: interrupted. The library's own reader would go on after the first Ctrl-C.
  int read_character(wchar_t* out) {
    std::mbstate_t state = {};
    for (;;) {
      char byte = 0;
      const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
      if (n == 0) return 0;
      if (n < 0) {
        if (errno != EINTR) return 0;
        const LineInfo* line = el_line(edit_);
        had_text_ = line->lastchar > line->buffer;
        interrupted_ = true;
        return -1;
      }
      const size_t used = std::mbrtowc(out, &byte, 1, &state);
      if (used == static_cast<size_t>(-2)) continue;  // a character of several bytes, not complete yet
      if (used == static_cast<size_t>(-1)) {
        state = {};
        continue;  // not UTF-8: dropped
      }
      return 1;
    }
  }

  std::string prompt_;
  EditLine* edit_;
  History* history_;
  bool interrupted_ = false, had_text_ = false;
};

}  // namespace

std::unique_ptr<LineReader> make_terminal_reader(const std::string& prompt) {
  return std::make_unique<TerminalReader>(prompt);
}

}  // namespace tinyserve::cli
