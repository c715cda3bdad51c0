#include "cli/context_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/error.h"

namespace tinyserve::cli {
namespace {

int32_t parse_one(std::string_view text, int32_t low, int32_t high) {
  int64_t value = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  const std::string_view unit(end, static_cast<size_t>(last - end));
  if (error != std::errc() || !(unit.empty() || unit == "k" || unit == "K"))
    throw InputError("lengths are given as 512, 2k, 1k,8k or 1k..32k (k: 1024 tokens)");
  if (value > high || (!unit.empty() && value > high / 1024) || value < 0 || (value *= unit.empty() ? 1 : 1024) < low)
    throw InputError(fmt::format("lengths are from {} to {}", low, high));
  return static_cast<int32_t>(value);
}

}  // namespace

std::vector<int32_t> parse_contexts(const std::string& text, int32_t low, int32_t high) {
  std::vector<int32_t> out;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string_view part = std::string_view(text).substr(begin, comma - begin);
    const size_t dots = part.find("..");
    if (dots == std::string_view::npos) {
      out.push_back(parse_one(part, low, high));
    } else {
      const int64_t from = parse_one(part.substr(0, dots), low, high), to = parse_one(part.substr(dots + 2), low, high);
      if (from > to) throw InputError("a range of lengths goes upward, as 1k..32k does");
      for (int64_t n = from; n <= to; n *= 2) out.push_back(static_cast<int32_t>(n));
    }
    begin = comma + 1;
  }
  return out;
}

}  // namespace tinyserve::cli
