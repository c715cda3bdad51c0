// Filters that make numbers.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "text/jinja/operators.h"
#include "text/jinja/registry.h"
#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

// Digits with single underscores between them, the underscores removed; nothing if they stand elsewhere.
std::optional<std::string> without_underscores(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '_') {
      out += s[i];
      continue;
    }
    if (i == 0 || i + 1 == s.size() || !std::isalnum(static_cast<unsigned char>(s[i - 1])) ||
        !std::isalnum(static_cast<unsigned char>(s[i + 1])))
      return std::nullopt;
  }
  return out;
}

// float(text) of Python; nothing when it would raise.
std::optional<double> parse_float(std::string_view text) {
  const auto clean = without_underscores(strip(text, nullptr, true, true));
  if (!clean || clean->empty()) return std::nullopt;
  const std::string_view s = *clean;
  const std::string_view digits = s.substr(s[0] == '+' || s[0] == '-');
  const bool number = !digits.empty() && (std::isdigit(static_cast<unsigned char>(digits[0])) || digits[0] == '.');
  const std::string lower = to_lower(digits);
  const bool word = lower == "inf" || lower == "infinity" || lower == "nan";
  if (!word && (!number || digits.find_first_of("xXpP") != digits.npos)) return std::nullopt;
  char* end = nullptr;
  const double d = std::strtod(clean->c_str(), &end);
  if (end != clean->c_str() + clean->size()) return std::nullopt;
  return d;
}

std::optional<int64_t> parse_integer(std::string_view text, int64_t base) {
  const auto clean = without_underscores(strip(text, nullptr, true, true));
  if (!clean || clean->empty()) return std::nullopt;
  std::string_view s = *clean;
  const bool minus = s[0] == '-';
  if (minus || s[0] == '+') s.remove_prefix(1);
  if (s.size() > 2 && s[0] == '0') {
    const char x = s[1] | 0x20;
    const int64_t prefix = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;
    if (prefix && (base == prefix || base == 0)) {
      s.remove_prefix(2);
      base = prefix;
    }
  }
  if (base == 0) base = 10;
  if (s.empty() || s[0] == '-' || s[0] == '+') return std::nullopt;
  const std::string digits = (minus ? "-" : "") + std::string(s);
  int64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, static_cast<int>(base));
  if (result.ec == std::errc::result_out_of_range) throw TemplateError("integer overflow: integers have 64 bits here");
  if (result.ec != std::errc() || result.ptr != digits.data() + digits.size()) return std::nullopt;
  return value;
}

Value to_integer(double d) {
  if (std::abs(d) >= 9.2e18) throw TemplateError("integer overflow: integers have 64 bits here");
  return Value(static_cast<int64_t>(d));
}

Value integer(Runtime&, const Value& v, Args& args) {
  ArgReader reader("filter 'int'", args);
  const Value* fallback = reader.next("default");
  const int64_t base = reader.integer("base", 10);
  reader.done();
  if (base != 0 && (base < 2 || base > 36)) reader.fail("the base must be 0 or 2 to 36");
  if (v.is_undefined()) throw TemplateError(v.undefined_message());
  if (v.is_integer()) return Value(v.integer());
  std::optional<double> d;
  if (v.is_string()) {
    if (const auto i = parse_integer(v.string(), base)) return Value(*i);
    d = parse_float(v.string());
  } else if (v.is_float()) {
    d = v.number();
    if (std::isinf(*d)) reader.fail("cannot convert infinity to an integer");
  }
  if (d && std::isfinite(*d)) return to_integer(*d);
  return fallback ? *fallback : Value(0);
}

Value floating(Runtime&, const Value& v, Args& args) {
  ArgReader reader("filter 'float'", args);
  const Value* fallback = reader.next("default");
  reader.done();
  if (v.is_undefined()) throw TemplateError(v.undefined_message());
  if (v.is_number()) return Value(v.number());
  if (v.is_string())
    if (const auto d = parse_float(v.string())) return Value(*d);
  return fallback ? *fallback : Value(0.0);
}

Value absolute(Runtime&, const Value& v, Args& args) {
  ArgReader("filter 'abs'", args).done();
  if (v.is_float()) return Value(std::abs(v.number()));
  if (v.is_integer()) return v.integer() < 0 ? negative(v) : Value(v.integer());
  if (v.is_undefined()) throw TemplateError(v.undefined_message());
  throw TemplateError(fmt::format("filter 'abs': takes a number, not {}", type_name(v)));
}

// round() of Python: the decimal nearest to the exact binary value, ties to even.
double round_common(double d, int64_t precision) {
  if (!std::isfinite(d) || precision > 30) return d;
  if (precision >= 0) return std::strtod(fmt::format("{:.{}f}", d, precision).c_str(), nullptr);
  if (precision < -308) return std::copysign(0.0, d);
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(d / unit) * unit;
}

Value round(Runtime&, const Value& v, Args& args) {
  ArgReader reader("filter 'round'", args);
  const int64_t precision = reader.integer("precision", 0);
  const std::string method = reader.string("method", "common");
  reader.done();
  if (v.is_undefined()) throw TemplateError(v.undefined_message());
  if (!v.is_number()) reader.fail(fmt::format("takes a number, not {}", type_name(v)));
  if (method == "common") {
    if (v.is_float()) return Value(round_common(v.number(), precision));
    if (precision >= 0) return Value(v.integer());
    if (precision < -18) return Value(0);
    int64_t unit = 1;
    for (int64_t i = 0; i > precision; --i) unit *= 10;
    const int64_t rest = ((v.integer() % unit) + unit) % unit;
    const bool odd = ((v.integer() - rest) / unit) % 2 != 0;
    const bool up = rest > unit / 2 || (rest == unit / 2 && odd);
    int64_t result = 0;
    if (__builtin_add_overflow(v.integer() - rest, up ? unit : 0, &result))
      throw TemplateError("integer overflow: integers have 64 bits here");
    return Value(result);
  }
  if (method != "ceil" && method != "floor") reader.fail("the method must be common, ceil or floor");
  if (std::abs(precision) > 300) reader.fail("the precision is out of range");
  const double unit = std::pow(10.0, static_cast<double>(precision));
  const double scaled = v.number() * unit;
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

constexpr FilterEntry kFilters[] = {
    {"int", integer},
    {"float", floating},
    {"abs", absolute},
    {"round", round},
};

}  // namespace

std::span<const FilterEntry> number_filters() { return kFilters; }

}  // namespace tinyserve::jinja
