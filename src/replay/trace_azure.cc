// Azure's traces of LLM inference (github.com/Azure/AzurePublicDataset, 2023 and 2024): CSV
//   TIMESTAMP,ContextTokens,GeneratedTokens
//   2023-11-16 18:15:46.6805900,374,44
// Times are UTC; 2024's end in +00:00. Lengths in tokens. Nothing is known of what prompts share.

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <optional>

#include "base/error.h"
#include "replay/trace_builder.h"

namespace tinyserve::replay {
namespace {

/// Takes digits and the separator after them from the front of `text`.
std::optional<int64_t> take(std::string_view& text, char separator) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const auto used = static_cast<size_t>(end - text.data());
  if (error != std::errc() || value < 0 || text.front() == '-') return std::nullopt;
  if (separator != '\0' && (used >= text.size() || text[used] != separator)) return std::nullopt;
  text.remove_prefix(used + (separator != '\0'));
  return value;
}

/// Seconds since 1970 of "2023-11-16 18:15:46.6805900", apart from the fraction so that nothing of it is lost.
std::optional<std::pair<int64_t, double>> parse_time(std::string_view text) {
  if (text.ends_with("+00:00")) text.remove_suffix(6);
  const auto year = take(text, '-'), month = take(text, '-'), day = take(text, ' ');
  const auto hour = take(text, ':'), minute = take(text, ':'), second = take(text, '\0');
  if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
  if (*year < 1970 || *year > 9999 || *month > 12 || *day > 31 || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(*year)), std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok()) return std::nullopt;
  double fraction = 0;
  if (!text.empty()) {
    if (text.front() != '.' || text.size() < 2 || text.find_first_not_of("0123456789", 1) != std::string_view::npos) return std::nullopt;
    double unit = 0.1;
    for (const char c : text.substr(1)) fraction += (c - '0') * unit, unit /= 10;
  }
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return std::pair(((days * 24 + *hour) * 60 + *minute) * 60 + *second, fraction);
}

}  // namespace

Trace read_azure(LineReader& lines, std::string_view first, int64_t max_requests) {
  TraceBuilder builder(lines, "azure", 0);
  if (first != "TIMESTAMP,ContextTokens,GeneratedTokens") builder.fail("the first line must be TIMESTAMP,ContextTokens,GeneratedTokens");
  std::optional<int64_t> start_s;
  for (std::string_view line; lines.next(line);) {
    if (line.empty()) continue;
    const size_t comma = line.find(',');
    const auto time = parse_time(line.substr(0, comma));
    if (comma == std::string_view::npos || !time) builder.fail("the line must begin with a time such as 2023-11-16 18:15:46.6805900 and a comma");
    std::string_view rest = line.substr(comma + 1);
    const auto prompt = take(rest, ','), answer = take(rest, '\0');
    if (!prompt || !answer || !rest.empty()) builder.fail("after the time there must be two whole numbers, the lengths of prompt and answer in tokens");
    if (!start_s) start_s = time->first;
    builder.add(static_cast<double>(time->first - *start_s) + time->second, *prompt, *answer);
    if (static_cast<int64_t>(builder.size()) == max_requests) break;
  }
  // The first request comes at 0.
  const double offset_s = builder.size() > 0 ? builder.at(0).arrival_s : 0;
  for (TraceRequest& r : builder.trace().requests) r.arrival_s -= offset_s;
  return builder.finish();
}

}  // namespace tinyserve::replay
