// Expressions: the half of Interpreter that computes values. Each kind of node with temporaries has a function of its
// own, so that the frame of the recursive evaluate() stays small.
#include <fmt/format.h>

#include "text/jinja/interpreter.h"
#include "text/jinja/operators.h"
#include "text/jinja/registry.h"

namespace tinyserve::jinja {

Value Interpreter::evaluate(const Expr& e) {
  runtime_.step();
  const Runtime::Depth depth(runtime_);
  switch (e.type) {
    case ExprType::kConst:
      return e.value;
    case ExprType::kName:
      return lookup(e.name);
    case ExprType::kList:
      return evaluate_sequence(e, SequenceKind::kList);
    case ExprType::kTuple:
      return evaluate_sequence(e, SequenceKind::kTuple);
    case ExprType::kDict:
      return evaluate_dict(e);
    case ExprType::kNot:
      return Value(!truth(evaluate(*e.children[0])));
    case ExprType::kNegative:
    case ExprType::kPositive:
    case ExprType::kBinary:
      return evaluate_binary(e);
    case ExprType::kAnd:
    case ExprType::kOr: {
      Value left = evaluate(*e.children[0]);
      if (truth(left) == (e.type == ExprType::kOr)) return left;
      return evaluate(*e.children[1]);
    }
    case ExprType::kConcat:
      return evaluate_concat(e);
    case ExprType::kCompare:
      return evaluate_compare(e);
    case ExprType::kCondition:
      return evaluate_condition(e);
    case ExprType::kAttribute: {
      const Value object = evaluate(*e.children[0]);
      runtime_.line = e.line;
      return runtime_.attribute(object, e.name);
    }
    case ExprType::kItem: {
      const Value object = evaluate(*e.children[0]);
      const Value key = evaluate(*e.children[1]);
      runtime_.line = e.line;
      return runtime_.item(object, key);
    }
    case ExprType::kSlice:
      return evaluate_slice(e);
    case ExprType::kCall:
      return evaluate_call(e);
    case ExprType::kFilter:
      return evaluate_filter(e);
    case ExprType::kTest:
      return evaluate_test(e);
  }
  return Value();
}

Value Interpreter::evaluate_sequence(const Expr& e, SequenceKind kind) {
  std::vector<Value> items;
  items.reserve(e.children.size());
  for (const ExprPtr& child : e.children) items.push_back(evaluate(*child));
  return runtime_.sequence(std::move(items), kind);
}

Value Interpreter::evaluate_dict(const Expr& e) {
  Dict dict;
  for (size_t i = 0; i < e.children.size(); i += 2) {
    const Value key = evaluate(*e.children[i]);
    dict.set(key, evaluate(*e.children[i + 1]));
  }
  return runtime_.dict(std::move(dict));
}

Value Interpreter::evaluate_concat(const Expr& e) {
  std::string out;
  for (const ExprPtr& child : e.children) {
    const Value value = evaluate(*child);
    runtime_.line = e.line;
    const std::string text = runtime_.text_of(value);
    runtime_.charge_text(out.size() + text.size());
    out += text;
  }
  return Value::text(std::move(out));
}

Value Interpreter::evaluate_compare(const Expr& e) {
  Value left = evaluate(*e.children[0]);
  for (size_t i = 0; i < e.ops.size(); ++i) {
    Value right = evaluate(*e.children[i + 1]);
    runtime_.line = e.line;
    if (!comparison(runtime_, e.ops[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::evaluate_condition(const Expr& e) {
  if (truth(evaluate(*e.children[0]))) return evaluate(*e.children[1]);
  if (e.children[2]) return evaluate(*e.children[2]);
  return Value::undefined(fmt::format("the inline if on line {} has no else and its condition is false", e.line));
}

Value Interpreter::evaluate_binary(const Expr& e) {
  const Value left = evaluate(*e.children[0]);
  if (e.type == ExprType::kNegative) return negative(left);
  if (e.type == ExprType::kPositive) return positive(left);
  const Value right = evaluate(*e.children[1]);
  runtime_.line = e.line;
  return binary(runtime_, e.op, left, right);
}

Value Interpreter::evaluate_slice(const Expr& e) {
  const Value object = evaluate(*e.children[0]);
  Value parts[3];
  const Value* given[3] = {};
  for (int i = 0; i < 3; ++i) {
    if (!e.children[i + 1]) continue;
    parts[i] = evaluate(*e.children[i + 1]);
    given[i] = &parts[i];
  }
  runtime_.line = e.line;
  return slice(runtime_, object, given[0], given[1], given[2]);
}

Args Interpreter::evaluate_args(const CallArgs& given) {
  Args args;
  for (const ExprPtr& e : given.positional) args.positional.push_back(evaluate(*e));
  for (const auto& [name, e] : given.keyword) args.keyword.emplace_back(name, evaluate(*e));
  if (given.star)
    for (Value& value : runtime_.items_of(evaluate(*given.star))) args.positional.push_back(std::move(value));
  if (given.double_star) {
    const Value extra = evaluate(*given.double_star);
    if (!extra.is_dict()) throw TemplateError(fmt::format("** needs a dict, not {}", type_name(extra)));
    for (const auto& [key, value] : extra.dict().entries) {
      if (!key.is_string()) throw TemplateError("the keys after ** must be strings");
      for (const auto& other : args.keyword)
        if (other.first == key.string()) throw TemplateError("the argument '" + key.string() + "' is given twice");
      runtime_.step(static_cast<int64_t>(args.keyword.size() / 8 + 1));
      args.keyword.emplace_back(key.string(), value);
    }
  }
  return args;
}

Value Interpreter::evaluate_call(const Expr& e, const Value* caller) {
  const Expr& callee = *e.children[0];
  // A method is called without making a value of it first.
  if (callee.type == ExprType::kAttribute) {
    const Value object = evaluate(*callee.children[0]);
    if (!object.is_object() && !object.is_undefined() && has_method(object, callee.name)) {
      Args args = evaluate_args(e.args);
      runtime_.line = e.line;
      return call_method(runtime_, object, callee.name, args);
    }
    runtime_.line = e.line;
    const Value function = runtime_.attribute(object, callee.name);
    Args args = evaluate_args(e.args);
    if (caller) args.keyword.emplace_back("caller", *caller);
    runtime_.line = e.line;
    return runtime_.call(function, args);
  }
  const Value function = evaluate(callee);
  Args args = evaluate_args(e.args);
  if (caller) args.keyword.emplace_back("caller", *caller);
  runtime_.line = e.line;
  return runtime_.call(function, args);
}

// `body` is the text of a block when the chain of filters stands at its head: the innermost has no child.
Value Interpreter::evaluate_filter(const Expr& e, const Value* body) {
  const Value input = !e.children[0]                             ? *body
                      : e.children[0]->type == ExprType::kFilter ? evaluate_filter(*e.children[0], body)
                                                                 : evaluate(*e.children[0]);
  Args args = evaluate_args(e.args);
  runtime_.line = e.line;
  runtime_.step();
  if (!e.filter) throw TemplateError(fmt::format("no filter named '{}'", e.name));
  return e.filter->apply(runtime_, input, args);
}

Value Interpreter::evaluate_test(const Expr& e) {
  const Value input = evaluate(*e.children[0]);
  Args args = evaluate_args(e.args);
  runtime_.line = e.line;
  if (!e.test) throw TemplateError(fmt::format("no test named '{}'", e.name));
  return Value(e.test->apply(runtime_, input, args));
}

}  // namespace tinyserve::jinja
