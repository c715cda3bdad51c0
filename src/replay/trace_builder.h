#pragma once
// What the readers of trace formats share: every number is checked before it is used.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "replay/line_reader.h"
#include "replay/trace.h"

namespace tinyserve::replay {

/// Puts a trace together, line by line. Messages name the reader's line.
class TraceBuilder {
 public:
  TraceBuilder(LineReader& lines, std::string format, int32_t tokens_per_name);

  /// Adds a request; throws InputError when a number is out of its range or time goes backwards.
  TraceRequest& add(double arrival_s, int64_t prompt, int64_t answer);
  /// Names the next block of the request added last.
  void name(uint64_t name);
  Trace finish() { return std::move(trace_); }

  size_t size() const { return trace_.requests.size(); }
  TraceRequest& at(size_t index) { return trace_.requests[index]; }
  Trace& trace() { return trace_; }
  [[noreturn]] void fail(const std::string& what) const;
  /// Throws InputError unless low <= value <= high.
  void check_range(std::string_view what, int64_t value, int64_t low, int64_t high) const;

 private:
  LineReader& lines_;
  Trace trace_;
};

// One a format. `first` is the first line, already read.
Trace read_mooncake(LineReader& lines, std::string_view first, int64_t max_requests);
Trace read_azure(LineReader& lines, std::string_view first, int64_t max_requests);
Trace read_recorded(LineReader& lines, std::string_view first, int64_t max_requests);

/// A line's JSON object; throws InputError with the line's number.
Json parse_line(const LineReader& lines, std::string_view line);
/// A member that must be a whole number; throws InputError when it is missing (unless `missing` points to what that
/// means), something else, or out of range.
int64_t whole_member(const LineReader& lines, const Json& object, const char* name, int64_t low, int64_t high,
                     const int64_t* missing = nullptr);
/// A member that must be a number >= 0.
double time_member(const LineReader& lines, const Json& object, const char* name, double scale);

}  // namespace tinyserve::replay
