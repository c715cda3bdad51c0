// What may stand after "is".
#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/operators.h"
#include "text/jinja/registry.h"
#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

using Test = bool (*)(Runtime& runtime, const Value& v, Args& args);

template <Operator op>
bool compare_test(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("comparison", args);
  const Value& other = reader.required("other");
  reader.done();
  return comparison(runtime, op, v, other);
}

// v % n == 0 as the tests odd, even and divisibleby need it.
bool divisible(Runtime& runtime, const Value& v, int64_t n, int64_t rest) {
  return runtime.equal(binary(runtime, Operator::kMod, v, Value(n)), Value(rest));
}

template <bool (*accepts)(const Value&)>
bool type_test(Runtime&, const Value& v, Args& args) {
  ArgReader("test", args).done();
  return accepts(v);
}

bool has_length(const Value& v) {
  return v.is_string() || v.is_dict() || v.is_undefined() ||
         (v.is_sequence() && !v.is_sequence(SequenceKind::kIterator) && !v.is_sequence(SequenceKind::kDictView));
}

bool case_test(Runtime& runtime, const Value& v, Args& args, const char* method) {
  ArgReader("test", args).done();
  Args none;
  return truth(call_method(runtime, runtime.text(runtime.text_of(v)), method, none));
}

bool same_as(Runtime&, const Value& v, Args& args) {
  ArgReader reader("test 'sameas'", args);
  const Value& other = reader.required("other");
  reader.done();
  if (v.kind() != other.kind()) return false;
  switch (v.kind()) {
    case Kind::kString:
      return &v.text() == &other.text() || v.string() == other.string();
    case Kind::kSequence:
      return &v.sequence() == &other.sequence();
    case Kind::kDict:
      return &v.dict() == &other.dict();
    default:
      return equal(v, other);
  }
}

constexpr TestEntry kTests[] = {
    {"defined", type_test<[](const Value& v) { return !v.is_undefined(); }>},
    {"undefined", type_test<[](const Value& v) { return v.is_undefined(); }>},
    {"none", type_test<[](const Value& v) { return v.is_none(); }>},
    {"boolean", type_test<[](const Value& v) { return v.is_bool(); }>},
    {"true", type_test<[](const Value& v) { return v.is_bool() && v.boolean(); }>},
    {"false", type_test<[](const Value& v) { return v.is_bool() && !v.boolean(); }>},
    {"integer", type_test<[](const Value& v) { return v.kind() == Kind::kInt; }>},
    {"float", type_test<[](const Value& v) { return v.is_float(); }>},
    {"number", type_test<[](const Value& v) { return v.is_number(); }>},
    {"string", type_test<[](const Value& v) { return v.is_string(); }>},
    {"mapping", type_test<[](const Value& v) { return v.is_dict(); }>},
    {"sequence", type_test<has_length>},
    {"iterable",
     type_test<[](const Value& v) { return v.is_string() || v.is_sequence() || v.is_dict() || v.is_undefined(); }>},
    {"callable",
     type_test<[](const Value& v) { return v.is_undefined() || (v.is_object() && v.object()->callable()); }>},
    {"escaped", type_test<[](const Value& v) { return v.is_safe(); }>},
    {"lower", [](Runtime& r, const Value& v, Args& a) { return case_test(r, v, a, "islower"); }},
    {"upper", [](Runtime& r, const Value& v, Args& a) { return case_test(r, v, a, "isupper"); }},
    {"odd", [](Runtime& r, const Value& v, Args&) { return divisible(r, v, 2, 1); }},
    {"even", [](Runtime& r, const Value& v, Args&) { return divisible(r, v, 2, 0); }},
    {"divisibleby",
     [](Runtime& r, const Value& v, Args& args) {
       ArgReader reader("test 'divisibleby'", args);
       const Value& n = reader.required("num");
       reader.done();
       return r.equal(binary(r, Operator::kMod, v, n), Value(0));
     }},
    {"sameas", same_as},
    {"in", compare_test<Operator::kIn>},
    {"eq", compare_test<Operator::kEq>},
    {"equalto", compare_test<Operator::kEq>},
    {"==", compare_test<Operator::kEq>},
    {"ne", compare_test<Operator::kNe>},
    {"!=", compare_test<Operator::kNe>},
    {"lt", compare_test<Operator::kLt>},
    {"lessthan", compare_test<Operator::kLt>},
    {"<", compare_test<Operator::kLt>},
    {"le", compare_test<Operator::kLe>},
    {"<=", compare_test<Operator::kLe>},
    {"gt", compare_test<Operator::kGt>},
    {"greaterthan", compare_test<Operator::kGt>},
    {">", compare_test<Operator::kGt>},
    {"ge", compare_test<Operator::kGe>},
    {">=", compare_test<Operator::kGe>},
    {"filter", [](Runtime&, const Value& v, Args&) { return v.is_string() && find_filter(v.string()) != nullptr; }},
    {"test", [](Runtime&, const Value& v, Args&) { return v.is_string() && find_test(v.string()) != nullptr; }},
};

}  // namespace

const TestEntry* find_test(std::string_view name) {
  const auto found = std::find_if(std::begin(kTests), std::end(kTests), [&](const auto& t) { return t.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace tinyserve::jinja
