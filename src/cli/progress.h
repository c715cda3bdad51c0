#pragma once
#include <cstdint>
#include <functional>
#include <string>

namespace tinyserve::cli {

/// How far a long run is and when it will end. On a terminal one line that is rewritten a few times a second; elsewhere
/// a plain line every ten seconds, so that a log stays readable and a short run prints nothing.
class Progress {
 public:
  using Clock = std::function<double()>;                   ///< seconds
  using Write = std::function<void(const std::string&)>;

  /// Writes to stderr.
  Progress(std::string label, int64_t total);
  Progress(std::string label, int64_t total, bool terminal, Clock clock, Write write);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of `total` are finished; prints when it is time to.
  void set(int64_t done);
  void add(int64_t n = 1) { set(done_ + n); }
  /// Takes the terminal's line away, so that something else can be printed.
  void clear();

 private:
  std::string label_;
  int64_t total_;
  bool terminal_;
  Clock clock_;
  Write write_;
  double start_s_;
  double printed_s_;
  int64_t done_ = 0;
  bool line_open_ = false;  ///< a terminal's line is on display
};

}  // namespace tinyserve::cli
