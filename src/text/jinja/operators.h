#pragma once
// The operators of expressions, with Python's rules for which types they take.

#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace tinyserve::jinja {

/// + - * / // % **. Throws TemplateError for types that do not go together, division by zero, integer overflow.
Value binary(Runtime& runtime, Operator op, const Value& a, const Value& b);
Value negative(const Value& a);
Value positive(const Value& a);
/// == != < <= > >= in, not in.
bool comparison(Runtime& runtime, Operator op, const Value& a, const Value& b);
/// object[start:stop:step]; parts that are not there are null pointers.
Value slice(Runtime& runtime, const Value& object, const Value* start, const Value* stop, const Value* step);

/// Python's % of a string: "%s has %d" % (a, b).
std::string format_percent(Runtime& runtime, std::string_view format, const Value& values);
/// str.format(): {} {0} {name}, with !r, !s and format specifications.
std::string format_braces(Runtime& runtime, std::string_view format, Args& args);
/// escape(): & < > ' " as HTML entities; text that is marked safe stays.
std::string escape_html(std::string_view s);

}  // namespace tinyserve::jinja
