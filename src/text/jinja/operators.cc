#include "text/jinja/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

constexpr const char* kOverflow = "integer overflow: integers have 64 bits here";

const char* symbol(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSub:
      return "-";
    case Operator::kMul:
      return "*";
    case Operator::kDiv:
      return "/";
    case Operator::kFloorDiv:
      return "//";
    case Operator::kMod:
      return "%";
    case Operator::kPow:
      return "**";
    default:
      return "?";
  }
}

[[noreturn]] void bad_types(Operator op, const Value& a, const Value& b) {
  if (a.is_undefined()) throw TemplateError(a.undefined_message());
  if (b.is_undefined()) throw TemplateError(b.undefined_message());
  throw TemplateError(fmt::format("'{}' does not go with {} and {}", symbol(op), type_name(a), type_name(b)));
}

int64_t floor_div(int64_t a, int64_t b) {
  const int64_t q = a / b;
  return q - (a % b != 0 && (a < 0) != (b < 0));
}

Value integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) throw TemplateError("division by zero: 0 to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (true) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) throw TemplateError(kOverflow);
    exponent >>= 1;
    if (!exponent) return Value(result);
    if (__builtin_mul_overflow(base, base, &base)) throw TemplateError(kOverflow);
  }
}

Value integer_arithmetic(Operator op, int64_t a, int64_t b) {
  int64_t r = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &r)) throw TemplateError(kOverflow);
      return Value(r);
    case Operator::kSub:
      if (__builtin_sub_overflow(a, b, &r)) throw TemplateError(kOverflow);
      return Value(r);
    case Operator::kMul:
      if (__builtin_mul_overflow(a, b, &r)) throw TemplateError(kOverflow);
      return Value(r);
    case Operator::kPow:
      return integer_power(a, b);
    default:
      break;
  }
  if (b == 0) throw TemplateError("division by zero");
  if (op == Operator::kDiv) return Value(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) {  // the one divisor whose quotient can overflow
    if (op == Operator::kMod) return Value(0);
    if (__builtin_sub_overflow(int64_t{0}, a, &r)) throw TemplateError(kOverflow);
    return Value(r);
  }
  return op == Operator::kFloorDiv ? Value(floor_div(a, b)) : Value(a - b * floor_div(a, b));
}

Value float_arithmetic(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value(a + b);
    case Operator::kSub:
      return Value(a - b);
    case Operator::kMul:
      return Value(a * b);
    case Operator::kPow: {
      if (a == 0 && b < 0) throw TemplateError("division by zero: 0.0 to a negative power");
      const double r = std::pow(a, b);
      if (std::isnan(r) && !std::isnan(a) && !std::isnan(b)) throw TemplateError("complex numbers are not supported");
      if (std::isinf(r) && std::isfinite(a) && std::isfinite(b)) throw TemplateError("the result is too large");
      return Value(r);
    }
    default:
      break;
  }
  if (b == 0) throw TemplateError("division by zero");
  if (op == Operator::kDiv) return Value(a / b);
  double mod = std::fmod(a, b);
  double quotient = (a - mod) / b;
  if (mod != 0) {
    if ((b < 0) != (mod < 0)) mod += b, quotient -= 1;
  } else {
    mod = std::copysign(0.0, b);
  }
  if (op == Operator::kMod) return Value(mod);
  double floored = quotient == 0 ? std::copysign(0.0, a / b) : std::floor(quotient);
  if (quotient - floored > 0.5) floored += 1;
  return Value(floored);
}

Value repeat(Runtime& runtime, const Value& value, int64_t times) {
  const size_t n = times > 0 ? static_cast<size_t>(times) : 0;
  if (value.is_string()) {
    const std::string& s = value.string();
    if (!s.empty() && n > runtime.limits().max_output_bytes / s.size())
      runtime.charge_text(runtime.limits().max_output_bytes + 1);  // fails, and says why
    std::string out;
    out.reserve(s.size() * n);
    for (size_t i = 0; i < n && !s.empty(); ++i) out += s;
    return runtime.text(std::move(out), value.is_safe());
  }
  const auto& items = value.sequence().items;
  if (!items.empty() && n > runtime.limits().max_memory_bytes / sizeof(Value) / items.size())
    runtime.charge(runtime.limits().max_memory_bytes + 1);
  runtime.charge(items.size() * n * sizeof(Value));
  std::vector<Value> out;
  out.reserve(items.size() * n);
  for (size_t i = 0; i < n && !items.empty(); ++i) out.insert(out.end(), items.begin(), items.end());
  return runtime.sequence(std::move(out), value.sequence().kind);
}

bool list_or_tuple(const Value& v) { return v.is_sequence(SequenceKind::kList) || v.is_sequence(SequenceKind::kTuple); }

Value add(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    const bool safe = a.is_safe() || b.is_safe();  // as markupsafe: what is not yet safe is escaped
    if (!safe) {
      runtime.charge_text(a.string().size() + b.string().size());
      return Value::text(a.string() + b.string());
    }
    return runtime.text(
        (a.is_safe() ? a.string() : escape_html(a.string())) + (b.is_safe() ? b.string() : escape_html(b.string())),
        true);
  }
  if (list_or_tuple(a) && list_or_tuple(b) && a.sequence().kind == b.sequence().kind) {
    runtime.charge((a.sequence().items.size() + b.sequence().items.size()) * sizeof(Value));
    std::vector<Value> items = a.sequence().items;
    items.insert(items.end(), b.sequence().items.begin(), b.sequence().items.end());
    return runtime.sequence(std::move(items), a.sequence().kind);
  }
  bad_types(Operator::kAdd, a, b);
}

struct Range {
  int64_t start, step, count;
};

// PySlice_AdjustIndices.
Range resolve(int64_t size, const Value* start, const Value* stop, const Value* step) {
  const auto number = [](const Value* v) -> std::optional<int64_t> {
    if (!v || v->is_none()) return std::nullopt;
    if (v->is_undefined()) throw TemplateError(v->undefined_message());
    if (!v->is_integer()) throw TemplateError(fmt::format("a slice needs integers, not {}", type_name(*v)));
    return v->integer();
  };
  const int64_t by = std::max<int64_t>(number(step).value_or(1), -INT64_MAX);
  if (by == 0) throw TemplateError("the step of a slice cannot be zero");
  const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? size : size - 1;
  const auto clamp = [&](std::optional<int64_t> v, int64_t fallback) {
    if (!v) return fallback;
    if (*v < 0) return std::max(*v + size, low);
    return std::min(*v, high);
  };
  const int64_t from = clamp(number(start), by > 0 ? low : high), to = clamp(number(stop), by > 0 ? high : low);
  int64_t count = 0;
  if (by > 0 && from < to) count = (to - from - 1) / by + 1;
  if (by < 0 && to < from) count = (from - to - 1) / -by + 1;
  return {from, by, count};
}

}  // namespace

Value binary(Runtime& runtime, Operator op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer()) return integer_arithmetic(op, a.integer(), b.integer());
    return float_arithmetic(op, a.number(), b.number());
  }
  if (op == Operator::kAdd) return add(runtime, a, b);
  if (op == Operator::kMul) {
    if (b.is_integer() && (a.is_string() || list_or_tuple(a))) return repeat(runtime, a, b.integer());
    if (a.is_integer() && (b.is_string() || list_or_tuple(b))) return repeat(runtime, b, a.integer());
  }
  if (op == Operator::kMod && a.is_string()) return runtime.text(format_percent(runtime, a.string(), b));
  bad_types(op, a, b);
}

Value negative(const Value& a) {
  if (a.is_float()) return Value(-a.number());
  if (a.is_integer()) return integer_arithmetic(Operator::kSub, 0, a.integer());
  if (a.is_undefined()) throw TemplateError(a.undefined_message());
  throw TemplateError(fmt::format("'-' does not go with {}", type_name(a)));
}

Value positive(const Value& a) {
  if (a.is_float()) return a;
  if (a.is_integer()) return Value(a.integer());
  if (a.is_undefined()) throw TemplateError(a.undefined_message());
  throw TemplateError(fmt::format("'+' does not go with {}", type_name(a)));
}

bool comparison(Runtime& runtime, Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::kEq:
      return runtime.equal(a, b);
    case Operator::kNe:
      return !runtime.equal(a, b);
    case Operator::kIn:
      return runtime.contains(b, a);
    case Operator::kNotIn:
      return !runtime.contains(b, a);
    default:
      break;
  }
  if (a.is_float() || b.is_float()) {  // NaN is neither below nor above
    if ((a.is_number() && std::isnan(a.number())) || (b.is_number() && std::isnan(b.number()))) return false;
  }
  const int order = runtime.compare(a, b);
  switch (op) {
    case Operator::kLt:
      return order < 0;
    case Operator::kLe:
      return order <= 0;
    case Operator::kGt:
      return order > 0;
    default:
      return order >= 0;
  }
}

Value slice(Runtime& runtime, const Value& object, const Value* start, const Value* stop, const Value* step) {
  if (object.is_undefined()) throw TemplateError(object.undefined_message());
  if (object.is_string()) {
    const Text& text = object.text();
    const Range r = resolve(text.num_chars, start, stop, step);
    runtime.step_bytes(text.bytes.size());
    if (r.step == 1) {
      const size_t begin = byte_offset(text.bytes, r.start), end = byte_offset(text.bytes, r.start + r.count);
      return runtime.text(text.bytes.substr(begin, end - begin), text.safe);
    }
    runtime.charge(text.bytes.size() + static_cast<size_t>(text.num_chars) * sizeof(std::string_view));
    const std::vector<std::string_view> chars = split_chars(text.bytes);
    std::string out;
    for (int64_t i = 0; i < r.count; ++i) out += chars[r.start + i * r.step];
    return runtime.text(std::move(out), text.safe);
  }
  if (list_or_tuple(object) || object.is_sequence(SequenceKind::kRange)) {
    const auto& items = object.sequence().items;
    const Range r = resolve(static_cast<int64_t>(items.size()), start, stop, step);
    std::vector<Value> out;
    runtime.charge(static_cast<size_t>(r.count) * sizeof(Value));
    for (int64_t i = 0; i < r.count; ++i) out.push_back(items[r.start + i * r.step]);
    if (!object.is_sequence(SequenceKind::kRange)) return runtime.sequence(std::move(out), object.sequence().kind);
    throw TemplateError("slices of range() are not supported; make it a list with |list first");
  }
  throw TemplateError(fmt::format("a value of type {} cannot be sliced", type_name(object)));
}

std::string escape_html(std::string_view s) {
  std::string out;
  for (const char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace tinyserve::jinja
