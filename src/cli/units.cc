#include "cli/units.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace tinyserve::cli {

int64_t parse_bytes(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, double>, 17> kUnits = {{
      {"", 1.0}, {"B", 1.0},
      {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
      {"K", 0x1p10}, {"M", 0x1p20}, {"G", 0x1p30}, {"T", 0x1p40},
      {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
      {"k", 0x1p10}, {"b", 1.0},
  }};
  constexpr const char* kExpected = "must be a size such as 512MiB, 2GiB or 1000000";
  double v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(v) || v < 0) throw InputError(kExpected);
  std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  for (const auto& [name, factor] : kUnits) {
    if (name != unit) continue;
    const double bytes = std::round(v * factor);
    if (bytes > 0x1p62) throw InputError("is too large a size");
    return static_cast<int64_t>(bytes);
  }
  throw InputError(kExpected);
}

std::string format_bytes(int64_t bytes) {
  static constexpr std::array<const char*, 5> kNames = {"B", "KiB", "MiB", "GiB", "TiB"};
  double v = static_cast<double>(bytes);
  size_t unit = 0;
  while (std::abs(v) >= 1024 && unit + 1 < kNames.size()) v /= 1024, ++unit;
  std::string digits = fmt::format("{:.2f}", v);
  while (digits.back() == '0') digits.pop_back();
  if (digits.back() == '.') digits.pop_back();
  return digits + " " + kNames[unit];
}

std::string format_count(int64_t count) {
  const double v = static_cast<double>(count);
  if (v >= 1e9) return fmt::format("{:.2f} B", v / 1e9);
  if (v >= 1e6) return fmt::format("{:.1f} M", v / 1e6);
  return fmt::format("{}", count);
}

std::string format_duration(double seconds) {
  const int64_t s = std::llround(std::ceil(std::max(0.0, seconds)));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

}  // namespace tinyserve::cli
