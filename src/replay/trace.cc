#include "replay/trace.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "replay/trace_builder.h"

namespace tinyserve::replay {
namespace {

constexpr double kMaxSeconds = 1e9;  // thirty years
constexpr size_t kMaxRequests = size_t{1} << 24;
constexpr size_t kMaxNames = size_t{1} << 28;

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t") == std::string_view::npos; }

}  // namespace

int64_t Trace::prompt_tokens() const {
  return std::accumulate(requests.begin(), requests.end(), int64_t{0}, [](int64_t n, auto& r) { return n + r.prompt; });
}

int64_t Trace::answer_tokens() const {
  return std::accumulate(requests.begin(), requests.end(), int64_t{0}, [](int64_t n, auto& r) { return n + r.answer; });
}

TraceBuilder::TraceBuilder(LineReader& lines, std::string format, int32_t tokens_per_name) : lines_(lines) {
  trace_.format = std::move(format);
  trace_.tokens_per_name = tokens_per_name;
}

void TraceBuilder::fail(const std::string& what) const { throw InputError(lines_.where() + what); }

void TraceBuilder::check_range(std::string_view what, int64_t value, int64_t low, int64_t high) const {
  if (value < low || value > high) fail(fmt::format("{} must be from {} to {}, got {}", what, low, high, value));
}

TraceRequest& TraceBuilder::add(double arrival_s, int64_t prompt, int64_t answer) {
  if (!trace_.requests.empty() && arrival_s < trace_.requests.back().arrival_s)
    fail(fmt::format("time goes backwards, from {} s to {} s: sort the trace by time", trace_.requests.back().arrival_s, arrival_s));
  if (!(arrival_s >= 0 && arrival_s <= kMaxSeconds))
    fail(fmt::format("the time must be from 0 to {} seconds, got {}", kMaxSeconds, arrival_s));
  check_range("the prompt's length", prompt, 1, kMaxTraceTokens);
  check_range("the answer's length", answer, 0, kMaxTraceTokens);
  if (trace_.requests.size() == kMaxRequests) fail(fmt::format("more than {} requests", kMaxRequests));
  trace_.requests.push_back({.arrival_s = arrival_s,
                             .prompt = static_cast<int32_t>(prompt),
                             .answer = static_cast<int32_t>(answer),
                             .first_name = static_cast<uint32_t>(trace_.names.size())});
  return trace_.requests.back();
}

void TraceBuilder::name(uint64_t name) {
  if (trace_.names.size() == kMaxNames) fail(fmt::format("more than {} names of blocks in all", kMaxNames));
  trace_.names.push_back(name);
  ++trace_.requests.back().num_names;
}

Json parse_line(const LineReader& lines, std::string_view line) {
  Json object = parse_json(line, lines.where() + "the line", {.max_bytes = LineReader::kMaxLineBytes, .max_depth = 4});
  if (!object.is_object()) throw InputError(lines.where() + "the line must be a JSON object");
  return object;
}

int64_t whole_member(const LineReader& lines, const Json& object, const char* name, int64_t low, int64_t high,
                     const int64_t* missing) {
  const auto found = object.find(name);
  if (found == object.end()) {
    if (missing) return *missing;
    throw InputError(fmt::format("{}\"{}\" is missing", lines.where(), name));
  }
  const bool in_range = found->is_number_unsigned() ? found->get<uint64_t>() <= static_cast<uint64_t>(high) &&
                                                          (low <= 0 || found->get<uint64_t>() >= static_cast<uint64_t>(low))
                                                    : found->is_number_integer() && found->get<int64_t>() >= low &&
                                                          found->get<int64_t>() <= high;
  if (!in_range) throw InputError(fmt::format("{}\"{}\" must be a whole number from {} to {}", lines.where(), name, low, high));
  return found->get<int64_t>();
}

double time_member(const LineReader& lines, const Json& object, const char* name, double scale) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number())
    throw InputError(fmt::format("{}\"{}\" must be a number", lines.where(), name));
  return found->get<double>() * scale;
}

Trace parse_trace(LineReader& lines, int64_t max_requests) {
  std::string_view line;
  do {
    if (!lines.next(line)) throw InputError(lines.where() + "the trace is empty");
    if (lines.number() == 1 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  } while (is_blank(line));
  Trace trace;
  if (line.front() == '{') {
    const Json first = parse_line(lines, line);
    trace = first.contains("format") ? read_recorded(lines, line, max_requests) : read_mooncake(lines, line, max_requests);
  } else if (line.starts_with("TIMESTAMP,")) {
    trace = read_azure(lines, line, max_requests);
  } else {
    throw InputError(lines.where() +
                     "this is no trace that can be read: neither JSON lines (tinyserve's or Mooncake's) nor a CSV file "
                     "that begins with TIMESTAMP,ContextTokens,GeneratedTokens (Azure's)");
  }
  if (trace.requests.empty()) throw InputError(lines.where() + "the trace has no request");
  return trace;
}

Trace load_trace(const std::filesystem::path& path, int64_t max_requests) {
  LineReader lines(open_file(path), path.string());
  return parse_trace(lines, max_requests);
}

}  // namespace tinyserve::replay
