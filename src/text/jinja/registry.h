#pragma once
// The filters, tests, functions and methods that templates can name.

#include <span>
#include <string>
#include <string_view>

#include "text/jinja/value.h"

namespace tinyserve::jinja {

struct FilterEntry {
  std::string_view name;
  Value (*apply)(Runtime& runtime, const Value& input, Args& args);
};

struct TestEntry {
  std::string_view name;
  bool (*apply)(Runtime& runtime, const Value& input, Args& args);
};

struct FunctionEntry {
  std::string_view name;
  Value (*call)(Runtime& runtime, Args& args);
};

/// Null when there is none of this name.
const FilterEntry* find_filter(std::string_view name);
const TestEntry* find_test(std::string_view name);

/// raise_exception, range, namespace...: what a template finds without being given it.
std::span<const FunctionEntry> functions();

std::span<const FilterEntry> text_filters();      ///< filters_text.cc
std::span<const FilterEntry> number_filters();    ///< filters_number.cc
std::span<const FilterEntry> sequence_filters();  ///< filters_sequence.cc

/// Methods of strings, dicts, lists. has_method tells whether Python's type has the name at all.
bool has_method(const Value& object, std::string_view name);
/// False for methods that Python has and templates may not use: those that change a list or dict, and a few others.
bool may_call_method(const Value& object, std::string_view name);
Value call_method(Runtime& runtime, const Value& object, std::string_view name, Args& args);

}  // namespace tinyserve::jinja
