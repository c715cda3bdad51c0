#pragma once
#include <memory>
#include <string>

namespace tinyserve::cli {

/// What came from the keyboard.
struct Line {
  enum Kind {
    kText,       ///< a line (without its newline)
    kEnd,        ///< Ctrl-D, or the terminal went away
    kCancelled,  ///< Ctrl-C while something stood on the line
    kLeave,      ///< Ctrl-C on an empty line
  } kind = kEnd;
  std::string text;
};

class LineReader {
 public:
  virtual ~LineReader() = default;
  virtual Line read() = 0;
};

/// Reads from the terminal with line editing and history. An InterruptHandler must be installed, so that Ctrl-C ends
/// the reading and not the program.
std::unique_ptr<LineReader> make_terminal_reader(const std::string& prompt);

}  // namespace tinyserve::cli
