// The two ways in which Python formats text: "%s" % x and "{}".format(x).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text/jinja/operators.h"
#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

constexpr int64_t kMaxPrecision = 300;

struct Spec {
  std::string fill = " ";
  char align = 0;  ///< '<', '>', '^', '='; 0: by type
  char sign = 0;   ///< '+', ' ' or 0
  bool alternate = false, zero = false;
  char grouping = 0;  ///< ',' or '_'
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

// Reads a decimal number; its size is bounded, since a width makes text.
int64_t read_number(Runtime& runtime, std::string_view s, size_t& i) {
  int64_t n = 0;
  while (i < s.size() && s[i] >= '0' && s[i] <= '9') {
    n = n * 10 + (s[i++] - '0');
    if (n > static_cast<int64_t>(runtime.limits().max_output_bytes))
      throw TemplateError("a width in a format is larger than the output limit");
  }
  return n;
}

std::string group_digits(const std::string& digits, char separator, size_t every) {
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i && (digits.size() - i) % every == 0) out += separator;
    out += digits[i];
  }
  return out;
}

std::string pad(Runtime& runtime, const Spec& spec, const std::string& sign, const std::string& body, char align) {
  const int64_t missing = spec.width - count_chars(sign) - count_chars(body);
  if (missing <= 0) return sign + body;
  runtime.charge_text(static_cast<size_t>(missing) * spec.fill.size());
  const auto fill = [&](int64_t n) {
    std::string out;
    for (int64_t i = 0; i < n; ++i) out += spec.fill;
    return out;
  };
  switch (align) {
    case '<':
      return sign + body + fill(missing);
    case '^':
      return fill(missing / 2) + sign + body + fill(missing - missing / 2);
    case '=':
      return sign + fill(missing) + body;
    default:
      return fill(missing) + sign + body;
  }
}

std::string format_integer(Runtime& runtime, const Spec& spec, int64_t n, char type, bool old_style) {
  const uint64_t magnitude = n < 0 ? uint64_t{0} - static_cast<uint64_t>(n) : static_cast<uint64_t>(n);
  std::string digits, prefix;
  switch (type) {
    case 'x':
      digits = fmt::format("{:x}", magnitude), prefix = "0x";
      break;
    case 'X':
      digits = fmt::format("{:X}", magnitude), prefix = "0X";
      break;
    case 'o':
      digits = fmt::format("{:o}", magnitude), prefix = "0o";
      break;
    case 'b':
      digits = fmt::format("{:b}", magnitude), prefix = "0b";
      break;
    default:
      digits = std::to_string(magnitude);
      break;
  }
  if (old_style && spec.precision > static_cast<int64_t>(digits.size())) {
    if (spec.precision > kMaxPrecision) throw TemplateError("a precision in a format is larger than 300");
    digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
  }
  if (spec.grouping) digits = group_digits(digits, spec.grouping, prefix.empty() ? 3 : 4);
  std::string sign = n < 0 ? "-" : spec.sign ? std::string(1, spec.sign) : "";
  if (spec.alternate) sign += prefix;
  return pad(runtime, spec, sign, digits, spec.align ? spec.align : '>');
}

std::string format_float(Runtime& runtime, const Spec& spec, double d, char type) {
  if (spec.precision > kMaxPrecision) throw TemplateError("a precision in a format is larger than 300");
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  const double magnitude = std::abs(d);
  std::string digits;
  if (!std::isfinite(d)) {
    digits = std::isnan(d) ? "nan" : "inf";
    if (type == 'E' || type == 'F' || type == 'G') digits = to_upper(digits);
  } else if (type == 0) {
    digits = spec.precision < 0 ? float_repr(magnitude) : fmt::format("{:.{}g}", magnitude, std::max(precision, 1));
  } else {
    const char conversion = type == '%' ? 'f' : type;
    const char plain[] = {'%', '.', '*', conversion, 0}, alternate[] = {'%', '#', '.', '*', conversion, 0};
    char buffer[700];  // 309 digits before the point, 300 after
    const int n = std::snprintf(buffer, sizeof buffer, spec.alternate ? alternate : plain, precision,
                                type == '%' ? magnitude * 100 : magnitude);
    digits.assign(buffer, static_cast<size_t>(std::clamp<int>(n, 0, sizeof buffer - 1)));
    if (type == '%') digits += '%';
  }
  if (spec.grouping) {
    const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
    digits = group_digits(digits.substr(0, end), spec.grouping, 3) + digits.substr(end);
  }
  const std::string sign = std::signbit(d) && !std::isnan(d) ? "-" : spec.sign ? std::string(1, spec.sign) : "";
  return pad(runtime, spec, sign, digits, spec.align ? spec.align : '>');
}

std::string cut(const std::string& s, int64_t precision) {
  return precision < 0 ? s : s.substr(0, byte_offset(s, precision));
}

std::string character(const Value& v) {
  if (v.is_string() && v.text().num_chars == 1) return v.string();
  if (!v.is_integer() || v.integer() < 0 || v.integer() > 0x10FFFF || (v.integer() >= 0xD800 && v.integer() < 0xE000))
    throw TemplateError("%c needs a character or its number");
  std::string out;
  append_char(out, static_cast<char32_t>(v.integer()));
  return out;
}

std::string percent_one(Runtime& runtime, const Spec& given, char type, const Value& v) {
  Spec spec = given;
  if (v.is_undefined() && type != 's' && type != 'r' && type != 'a') throw TemplateError(v.undefined_message());
  if (spec.zero && spec.align != '<' && type != 's' && type != 'r' && type != 'c') spec.fill = "0", spec.align = '=';
  switch (type) {
    case 's':
      return pad(runtime, spec, "", cut(runtime.text_of(v), spec.precision), spec.align ? spec.align : '>');
    case 'r':
      runtime.step_bytes(v.weight());
      return pad(runtime, spec, "", cut(to_repr(v), spec.precision), spec.align ? spec.align : '>');
    case 'c':
      return pad(runtime, spec, "", character(v), spec.align ? spec.align : '>');
    case 'd':
    case 'i':
    case 'u':
      if (v.is_float()) {
        if (!std::isfinite(v.number()) || std::abs(v.number()) >= 9.2e18)
          throw TemplateError("%d of a float that does not fit 64 bits");
        return format_integer(runtime, spec, static_cast<int64_t>(v.number()), 'd', true);
      }
      [[fallthrough]];
    case 'x':
    case 'X':
    case 'o':
      if (!v.is_integer()) throw TemplateError(fmt::format("%{} needs a number, not {}", type, type_name(v)));
      return format_integer(runtime, spec, v.integer(), type, true);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      if (!v.is_number()) throw TemplateError(fmt::format("%{} needs a number, not {}", type, type_name(v)));
      return format_float(runtime, spec, v.number(), type);
    default:
      throw TemplateError(fmt::format("the format %{} is not supported", type));
  }
}

// [[fill]align][sign][#][0][width][grouping][.precision][type]
Spec parse_spec(Runtime& runtime, std::string_view s) {
  Spec spec;
  size_t i = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  size_t second = 0;
  if (!s.empty()) next_char(s, second);
  if (!s.empty() && second < s.size() && is_align(s[second])) {
    spec.fill = s.substr(0, second);
    spec.align = s[second];
    i = second + 1;
  } else if (!s.empty() && is_align(s[0])) {
    spec.align = s[0];
    i = 1;
  }
  if (i < s.size() && (s[i] == '+' || s[i] == ' ' || s[i] == '-')) {
    if (s[i] != '-') spec.sign = s[i];
    ++i;
  }
  if (i < s.size() && s[i] == '#') spec.alternate = true, ++i;
  if (i < s.size() && s[i] == '0') {
    spec.zero = true;
    ++i;
    if (!spec.align) spec.fill = "0", spec.align = '=';
  }
  spec.width = read_number(runtime, s, i);
  if (i < s.size() && (s[i] == ',' || s[i] == '_')) spec.grouping = s[i++];
  if (i < s.size() && s[i] == '.') {
    const size_t before = ++i;
    spec.precision = read_number(runtime, s, i);
    if (i == before) throw TemplateError("format: a precision is missing");
  }
  if (i < s.size()) spec.type = s[i++];
  if (i < s.size()) throw TemplateError(fmt::format("format: the specification '{}' is not supported", s));
  return spec;
}

std::string format_spec(Runtime& runtime, const Value& v, std::string_view text) {
  if (text.empty()) return runtime.text_of(v);
  const Spec spec = parse_spec(runtime, text);
  const auto unsupported = [&]() -> std::string {
    throw TemplateError(fmt::format("format: the specification '{}' does not go with {}", text, type_name(v)));
  };
  if (v.is_string()) {
    if ((spec.type && spec.type != 's') || spec.sign || spec.alternate || spec.grouping) return unsupported();
    if (spec.align == '=' && !spec.zero) return unsupported();
    return pad(runtime, spec, "", cut(v.string(), spec.precision), spec.align && spec.align != '=' ? spec.align : '<');
  }
  const bool float_type = spec.type && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  if (v.is_float() && (!spec.type || float_type)) return format_float(runtime, spec, v.number(), spec.type);
  if (v.is_integer() && float_type) return format_float(runtime, spec, v.number(), spec.type);
  if (v.is_integer() && (!spec.type || std::string_view("dxXob").find(spec.type) != std::string_view::npos)) {
    if (spec.precision >= 0) return unsupported();
    return format_integer(runtime, spec, v.integer(), spec.type ? spec.type : 'd', false);
  }
  if (v.is_integer() && spec.type == 'c') return pad(runtime, spec, "", character(v), spec.align ? spec.align : '<');
  return unsupported();
}

}  // namespace

std::string format_percent(Runtime& runtime, std::string_view format, const Value& values) {
  std::string out;
  const bool tuple = values.is_sequence(SequenceKind::kTuple);
  size_t used = 0;
  bool by_name = false;
  const auto next = [&]() -> Value {
    if (tuple) {
      const auto& items = values.sequence().items;
      if (used >= items.size()) throw TemplateError("not enough values for the format");
      return items[used++];
    }
    if (used++) throw TemplateError("not enough values for the format");
    return values;
  };
  runtime.step_bytes(format.size());
  for (size_t i = 0; i < format.size();) {
    if (format[i] != '%') {
      const size_t end = std::min(format.find('%', i), format.size());
      out += format.substr(i, end - i);
      i = end;
      continue;
    }
    ++i;
    Spec spec;
    std::optional<Value> named;
    if (i < format.size() && format[i] == '(') {
      const size_t end = format.find(')', i);
      if (end == format.npos) throw TemplateError("a name in a format has no ')'");
      const std::string_view name = format.substr(i + 1, end - i - 1);
      if (!values.is_dict()) throw TemplateError("a format with names needs a dict");
      const Value* found = values.dict().find(name);
      if (!found) throw TemplateError(fmt::format("the format needs '{}', which the dict lacks", name));
      named = *found;
      by_name = true;
      i = end + 1;
    }
    for (; i < format.size(); ++i) {
      const char c = format[i];
      if (c == '-')
        spec.align = '<';
      else if (c == '+')
        spec.sign = '+';
      else if (c == ' ')
        spec.sign = spec.sign ? spec.sign : ' ';
      else if (c == '#')
        spec.alternate = true;
      else if (c == '0')
        spec.zero = true;
      else
        break;
    }
    const auto star_or_number = [&]() -> int64_t {
      if (i >= format.size() || format[i] != '*') return read_number(runtime, format, i);
      ++i;
      const Value v = next();
      if (!v.is_integer()) throw TemplateError("'*' in a format needs an integer");
      if (std::abs(v.integer()) > static_cast<int64_t>(runtime.limits().max_output_bytes))
        throw TemplateError("a width in a format is larger than the output limit");
      return v.integer();
    };
    spec.width = star_or_number();
    if (spec.width < 0) spec.align = '<', spec.width = -spec.width;
    if (i < format.size() && format[i] == '.') {
      ++i;
      spec.precision = std::max<int64_t>(star_or_number(), 0);
    }
    while (i < format.size() && (format[i] == 'l' || format[i] == 'h' || format[i] == 'L')) ++i;
    if (i >= format.size()) throw TemplateError("the format ends inside a '%'");
    const char type = format[i++];
    std::string piece = type == '%' ? "%" : percent_one(runtime, spec, type, named ? *named : next());
    runtime.charge_text(piece.size());
    if (out.size() + piece.size() > runtime.limits().max_output_bytes) runtime.charge_text(out.size() + piece.size());
    out += piece;
  }
  const bool left = tuple ? used < values.sequence().items.size() : used == 0 && !values.is_dict();
  if (left && !by_name && !(values.is_sequence() && !tuple))
    throw TemplateError("not all values were used by the format");
  return out;
}

std::string format_braces(Runtime& runtime, std::string_view format, Args& args) {
  std::string out;
  size_t automatic = 0;
  bool numbered = false;
  runtime.step_bytes(format.size());
  for (size_t i = 0; i < format.size();) {
    const char c = format[i];
    if (c != '{' && c != '}') {
      const size_t end = std::min(format.find_first_of("{}", i), format.size());
      out += format.substr(i, end - i);
      i = end;
      continue;
    }
    if (i + 1 < format.size() && format[i + 1] == c) {
      out += c;
      i += 2;
      continue;
    }
    const size_t end = format.find('}', i);
    if (c == '}' || end == format.npos) throw TemplateError("format: a single '{' or '}'");
    std::string_view field = format.substr(i + 1, end - i - 1), spec;
    if (field.find('{') != field.npos) throw TemplateError("format: fields inside fields are not supported");
    if (const size_t colon = field.find(':'); colon != field.npos) {
      spec = field.substr(colon + 1);
      field = field.substr(0, colon);
    }
    char conversion = 0;
    if (const size_t mark = field.find('!'); mark != field.npos) {
      if (field.size() != mark + 2 || (field[mark + 1] != 'r' && field[mark + 1] != 's'))
        throw TemplateError("format: only the conversions !r and !s are supported");
      conversion = field[mark + 1];
      field = field.substr(0, mark);
    }
    // name.attribute[item] as jinja2's sandbox resolves it.
    const size_t head_end = std::min(field.find_first_of(".["), field.size());
    const std::string_view head = field.substr(0, head_end);
    const bool digits = !head.empty() && head.size() < 10 &&
                        std::all_of(head.begin(), head.end(), [](char d) { return d >= '0' && d <= '9'; });
    Value value;
    if (head.empty() || digits) {
      if (head.empty() ? numbered : automatic > 0) throw TemplateError("format: '{}' and '{0}' do not mix");
      numbered |= digits;
      const size_t index = digits ? std::stoul(std::string(head)) : automatic++;
      if (index >= args.positional.size()) throw TemplateError("format: not enough values");
      value = args.positional[index];
    } else {
      const auto found = std::find_if(args.keyword.begin(), args.keyword.end(),
                                      [&](const auto& keyword) { return keyword.first == head; });
      if (found == args.keyword.end()) throw TemplateError(fmt::format("format: no value named '{}'", head));
      value = found->second;
    }
    for (size_t p = head_end; p < field.size();) {
      if (field[p] == '.') {
        const size_t stop = std::min(field.find_first_of(".[", p + 1), field.size());
        value = runtime.attribute(value, field.substr(p + 1, stop - p - 1));
        p = stop;
      } else {
        const size_t stop = field.find(']', p);
        if (field[p] != '[' || stop == field.npos) throw TemplateError("format: an index has no ']'");
        const std::string key(field.substr(p + 1, stop - p - 1));
        const bool index = !key.empty() && key.size() < 10 &&
                           std::all_of(key.begin(), key.end(), [](char d) { return d >= '0' && d <= '9'; });
        value = runtime.item(value, index ? Value(int64_t{std::stol(key)}) : runtime.text(key));
        p = stop + 1;
      }
    }
    if (conversion == 'r') runtime.step_bytes(value.weight());
    if (conversion) value = runtime.text(conversion == 'r' ? to_repr(value) : runtime.text_of(value));
    const std::string piece = format_spec(runtime, value, spec);
    runtime.charge_text(piece.size());
    if (out.size() + piece.size() > runtime.limits().max_output_bytes) runtime.charge_text(out.size() + piece.size());
    out += piece;
    i = end + 1;
  }
  return out;
}

}  // namespace tinyserve::jinja
