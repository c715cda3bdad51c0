#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "cli/units.h"

namespace tinyserve::cli {
namespace {

constexpr double kTerminalInterval = 0.2;  // seconds between rewrites
constexpr double kLineInterval = 10;       // seconds between plain lines

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void write_stderr(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

}  // namespace

Progress::Progress(std::string label, int64_t total)
    : Progress(std::move(label), total, isatty(STDERR_FILENO) == 1, now_s, write_stderr) {}

Progress::Progress(std::string label, int64_t total, bool terminal, Clock clock, Write write)
    : label_(std::move(label)), total_(total), terminal_(terminal), clock_(std::move(clock)), write_(std::move(write)),
      start_s_(clock_()), printed_s_(start_s_) {}

void Progress::clear() {
  if (line_open_) write_("\r\033[K");
  line_open_ = false;
}

void Progress::set(int64_t done) {
  done_ = done;
  const double now = clock_();
  if (now - printed_s_ < (terminal_ ? kTerminalInterval : kLineInterval)) return;
  printed_s_ = now;
  std::string text = fmt::format("{}: {} of {}", label_, done_, total_);
  if (done_ > 0 && done_ < total_)
    text += fmt::format(", {} to go",
                        format_duration((now - start_s_) / static_cast<double>(done_) * static_cast<double>(total_ - done_)));
  write_(terminal_ ? "\r\033[K" + text : text + "\n");
  line_open_ = terminal_;
}

}  // namespace tinyserve::cli
