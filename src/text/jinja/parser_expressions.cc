#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/error.h"
#include "text/jinja/limits.h"
#include "text/jinja/parser_internal.h"
#include "text/jinja/registry.h"

namespace tinyserve::jinja {

ExprPtr Parser::make(ExprType type, int line, std::vector<ExprPtr> children) {
  auto e = std::make_unique<Expr>();
  e->type = type;
  e->line = line;
  e->children = std::move(children);
  return e;
}

// Every node passes through here once its children are in place: chains such as a.b.c.d deepen the tree without
// deepening the parser's recursion.
ExprPtr Parser::finish(ExprPtr e) const {
  const auto take = [&](const ExprPtr& child) {
    if (child) e->depth = std::max(e->depth, child->depth + 1);
  };
  for (const ExprPtr& child : e->children) take(child);
  for (const ExprPtr& child : e->args.positional) take(child);
  for (const auto& child : e->args.keyword) take(child.second);
  take(e->args.star);
  take(e->args.double_star);
  if (e->depth > kMaxNodeDepth) fail(fmt::format("an expression is more than {} operations deep", kMaxNodeDepth));
  return e;
}

namespace {

template <class... T>
std::vector<ExprPtr> list_of(T... e) {
  std::vector<ExprPtr> out;
  (out.push_back(std::move(e)), ...);
  return out;
}

}  // namespace

ExprPtr Parser::parse_expression(bool with_condition) {
  const Nesting nesting(*this);
  const size_t unknown = unknown_.size();
  ExprPtr e = parse_or();
  while (with_condition && is_name("if")) {
    const int line = current().line;
    skip();
    ExprPtr test = parse_or();
    ExprPtr otherwise = skip_name("else") ? parse_expression() : nullptr;
    unknown_.resize(unknown);
    e = finish(make(ExprType::kCondition, line, list_of(std::move(test), std::move(e), std::move(otherwise))));
  }
  return e;
}

bool Parser::at_tuple_end() const {
  return is(TokenType::kVariableEnd) || is(TokenType::kBlockEnd) || is_operator(")");
}

// Expressions with commas between them are a tuple.
ExprPtr Parser::parse_tuple(bool with_condition, bool in_parentheses) {
  const int line = current().line;
  std::vector<ExprPtr> items;
  bool tuple = false;
  while (true) {
    if (!items.empty()) expect_operator(",");
    if (at_tuple_end() || (!items.empty() && is_name("recursive"))) break;
    items.push_back(parse_expression(with_condition));
    if (!is_operator(",")) break;
    tuple = true;
  }
  if (!tuple) {
    if (!items.empty()) return std::move(items[0]);
    if (!in_parentheses) fail_unexpected("an expression");
  }
  return finish(make(ExprType::kTuple, line, std::move(items)));
}

ExprPtr Parser::parse_or() {
  ExprPtr e = parse_and();
  while (is_name("or")) {
    const int line = current().line;
    skip();
    e = finish(make(ExprType::kOr, line, list_of(std::move(e), parse_and())));
  }
  return e;
}

ExprPtr Parser::parse_and() {
  ExprPtr e = parse_not();
  while (is_name("and")) {
    const int line = current().line;
    skip();
    e = finish(make(ExprType::kAnd, line, list_of(std::move(e), parse_not())));
  }
  return e;
}

ExprPtr Parser::parse_not() {
  if (!is_name("not")) return parse_compare();
  const Nesting nesting(*this);
  const int line = current().line;
  skip();
  return finish(make(ExprType::kNot, line, list_of(parse_not())));
}

ExprPtr Parser::parse_compare() {
  static constexpr std::pair<std::string_view, Operator> kComparisons[] = {
      {"==", Operator::kEq}, {"!=", Operator::kNe}, {"<", Operator::kLt},
      {"<=", Operator::kLe}, {">", Operator::kGt},  {">=", Operator::kGe}};
  const int line = current().line;
  ExprPtr first = parse_sum();
  std::vector<ExprPtr> operands;
  std::vector<Operator> ops;
  while (true) {
    if (is_name("in")) {
      skip();
      ops.push_back(Operator::kIn);
    } else if (is_name("not") && look().type == TokenType::kName && look().text == "in") {
      skip();
      skip();
      ops.push_back(Operator::kNotIn);
    } else {
      const auto* found = std::find_if(std::begin(kComparisons), std::end(kComparisons),
                                       [&](const auto& c) { return is_operator(c.first); });
      if (found == std::end(kComparisons)) break;
      skip();
      ops.push_back(found->second);
    }
    if (operands.empty()) operands.push_back(std::move(first));
    operands.push_back(parse_sum());
  }
  if (ops.empty()) return first;
  ExprPtr e = make(ExprType::kCompare, line, std::move(operands));
  e->ops = std::move(ops);
  return finish(std::move(e));
}

ExprPtr Parser::parse_sum() {
  ExprPtr e = parse_concat();
  while (is_operator("+") || is_operator("-")) {
    const int line = current().line;
    const Operator op = is_operator("+") ? Operator::kAdd : Operator::kSub;
    skip();
    e = make(ExprType::kBinary, line, list_of(std::move(e), parse_concat()));
    e->op = op;
    e = finish(std::move(e));
  }
  return e;
}

ExprPtr Parser::parse_concat() {
  const int line = current().line;
  ExprPtr e = parse_product();
  if (!is_operator("~")) return e;
  std::vector<ExprPtr> items = list_of(std::move(e));
  while (skip_operator("~")) items.push_back(parse_product());
  return finish(make(ExprType::kConcat, line, std::move(items)));
}

ExprPtr Parser::parse_product() {
  static constexpr std::pair<std::string_view, Operator> kProducts[] = {
      {"*", Operator::kMul}, {"/", Operator::kDiv}, {"//", Operator::kFloorDiv}, {"%", Operator::kMod}};
  ExprPtr e = parse_power();
  while (true) {
    const auto* found =
        std::find_if(std::begin(kProducts), std::end(kProducts), [&](const auto& p) { return is_operator(p.first); });
    if (found == std::end(kProducts)) return e;
    const int line = current().line;
    skip();
    e = make(ExprType::kBinary, line, list_of(std::move(e), parse_power()));
    e->op = found->second;
    e = finish(std::move(e));
  }
}

ExprPtr Parser::parse_power() {
  ExprPtr e = parse_unary();
  while (is_operator("**")) {
    const int line = current().line;
    skip();
    e = make(ExprType::kBinary, line, list_of(std::move(e), parse_unary()));
    e->op = Operator::kPow;
    e = finish(std::move(e));
  }
  return e;
}

ExprPtr Parser::parse_unary(bool with_filter) {
  const Nesting nesting(*this);
  ExprPtr e;
  if (is_operator("-") || is_operator("+")) {
    const int line = current().line;
    const ExprType type = is_operator("-") ? ExprType::kNegative : ExprType::kPositive;
    skip();
    e = finish(make(type, line, list_of(parse_unary(false))));
  } else {
    e = parse_primary();
  }
  e = parse_postfix(std::move(e));
  return with_filter ? parse_filters(std::move(e)) : std::move(e);
}

ExprPtr Parser::parse_primary() {
  const Token token = current();
  ExprPtr e = make(ExprType::kConst, token.line);
  switch (token.type) {
    case TokenType::kName:
      skip();
      if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
        e->value = Value(token.text == "true" || token.text == "True");
      } else if (token.text == "none" || token.text == "None") {
        e->value = Value::none();
      } else {
        e->type = ExprType::kName;
        e->name = token.text;
        if (token.text == "loop")
          uses_ |= kLoop;
        else if (token.text == "varargs")
          uses_ |= kVarargs;
        else if (token.text == "kwargs")
          uses_ |= kKwargs;
        else if (token.text == "caller")
          uses_ |= kCaller;
      }
      return e;
    case TokenType::kString: {
      std::string text;
      for (; is(TokenType::kString); skip()) text += current().text;
      e->value = Value::text(std::move(text));
      return e;
    }
    case TokenType::kInteger:
      skip();
      e->value = Value(token.integer);
      return e;
    case TokenType::kFloat:
      skip();
      e->value = Value(token.number);
      return e;
    case TokenType::kOperator:
      if (token.text == "(") {
        skip();
        e = parse_tuple(true, true);
        expect_operator(")");
        return e;
      }
      if (token.text == "[") return parse_list();
      if (token.text == "{") return parse_dict();
      [[fallthrough]];
    default:
      fail_unexpected("an expression");
  }
}

ExprPtr Parser::parse_list() {
  const int line = current().line;
  skip();
  std::vector<ExprPtr> items;
  while (!is_operator("]")) {
    if (!items.empty()) expect_operator(",");
    if (is_operator("]")) break;
    items.push_back(parse_expression());
  }
  expect_operator("]");
  return finish(make(ExprType::kList, line, std::move(items)));
}

ExprPtr Parser::parse_dict() {
  const int line = current().line;
  skip();
  std::vector<ExprPtr> items;
  while (!is_operator("}")) {
    if (!items.empty()) expect_operator(",");
    if (is_operator("}")) break;
    items.push_back(parse_expression());
    expect_operator(":");
    items.push_back(parse_expression());
  }
  expect_operator("}");
  return finish(make(ExprType::kDict, line, std::move(items)));
}

ExprPtr Parser::parse_postfix(ExprPtr e) {
  while (true) {
    if (is_operator(".") || is_operator("["))
      e = parse_subscript(std::move(e));
    else if (is_operator("("))
      e = parse_call(std::move(e));
    else
      return e;
  }
}

ExprPtr Parser::parse_filters(ExprPtr e) {
  while (true) {
    if (skip_operator("|"))
      e = parse_filter(std::move(e));
    else if (is_name("is"))
      e = parse_test(std::move(e));
    else if (is_operator("("))
      e = parse_call(std::move(e));  // the value of a filter or test may be called
    else
      return e;
  }
}

ExprPtr Parser::parse_subscript(ExprPtr object) {
  const int line = current().line;
  if (skip_operator("[")) return parse_index(std::move(object), line);
  skip();
  ExprPtr e;
  if (is(TokenType::kName)) {
    e = make(ExprType::kAttribute, line, list_of(std::move(object)));
    e->name = current().text;
  } else if (is(TokenType::kInteger)) {
    ExprPtr index = make(ExprType::kConst, line);
    index->value = Value(current().integer);
    e = make(ExprType::kItem, line, list_of(std::move(object), std::move(index)));
  } else {
    fail_unexpected("a name or a number after '.'");
  }
  skip();
  return finish(std::move(e));
}

// After '[': an index, or a slice of up to three parts.
ExprPtr Parser::parse_index(ExprPtr object, int line) {
  const auto part = [&]() -> ExprPtr {
    return is_operator(":") || is_operator("]") || is_operator(",") ? nullptr : parse_expression();
  };
  if (is_operator("]") || is_operator(",")) fail_unexpected("an index");
  ExprPtr first = part();
  if (is_operator("]")) {
    skip();
    return finish(make(ExprType::kItem, line, list_of(std::move(object), std::move(first))));
  }
  if (is_operator(",")) {
    std::vector<ExprPtr> items = list_of(std::move(first));
    while (skip_operator(",") && !is_operator("]")) items.push_back(parse_expression());
    expect_operator("]");
    ExprPtr tuple = finish(make(ExprType::kTuple, line, std::move(items)));
    return finish(make(ExprType::kItem, line, list_of(std::move(object), std::move(tuple))));
  }
  expect_operator(":");
  ExprPtr stop = part();
  ExprPtr step = skip_operator(":") ? part() : nullptr;
  expect_operator("]");
  return finish(
      make(ExprType::kSlice, line, list_of(std::move(object), std::move(first), std::move(stop), std::move(step))));
}

CallArgs Parser::parse_call_args() {
  const int line = current().line;
  CallArgs args;
  expect_operator("(");
  const auto ensure = [&](bool ok) {
    if (!ok) fail("arguments of a call stand in the order: values, name=value, *list, **dict", line);
  };
  bool comma = false;
  while (!is_operator(")")) {
    if (comma) {
      expect_operator(",");
      if (is_operator(")")) break;
    }
    comma = true;
    if (skip_operator("*")) {
      ensure(!args.star && !args.double_star);
      args.star = parse_expression();
    } else if (skip_operator("**")) {
      ensure(!args.double_star);
      args.double_star = parse_expression();
    } else if (is(TokenType::kName) && look().type == TokenType::kOperator && look().text == "=") {
      ensure(!args.double_star);
      std::string name = current().text;
      for (const auto& other : args.keyword)
        if (other.first == name) fail(fmt::format("the argument '{}' is given twice", name));
      skip();
      skip();
      args.keyword.emplace_back(std::move(name), parse_expression());
    } else {
      ensure(!args.star && !args.double_star && args.keyword.empty());
      args.positional.push_back(parse_expression());
    }
  }
  expect_operator(")");
  return args;
}

ExprPtr Parser::parse_call(ExprPtr callee) {
  ExprPtr e = make(ExprType::kCall, current().line, list_of(std::move(callee)));
  e->args = parse_call_args();
  return finish(std::move(e));
}

// After '|' (or the word "filter"): one filter applied to `input`, which is null for the body of a block.
ExprPtr Parser::parse_filter(ExprPtr input) {
  ExprPtr e = make(ExprType::kFilter, current().line, list_of(std::move(input)));
  e->name = expect_name("the name of a filter");
  while (skip_operator(".")) e->name += "." + expect_name("the name of a filter");
  e->filter = find_filter(e->name);
  if (!e->filter) unknown_.emplace_back(e->line, fmt::format("no filter named '{}'", e->name));
  if (is_operator("(")) e->args = parse_call_args();
  return finish(std::move(e));
}

ExprPtr Parser::parse_filter_chain(bool leading_pipe) {
  if (leading_pipe) expect_operator("|");
  ExprPtr e = parse_filter(nullptr);
  while (skip_operator("|")) e = parse_filter(std::move(e));
  return e;
}

ExprPtr Parser::parse_test(ExprPtr input) {
  ExprPtr e = make(ExprType::kTest, current().line, list_of(std::move(input)));
  skip();
  const bool negated = skip_name("not");
  e->name = expect_name("the name of a test");
  while (skip_operator(".")) e->name += "." + expect_name("the name of a test");
  e->test = find_test(e->name);
  if (!e->test) unknown_.emplace_back(e->line, fmt::format("no test named '{}'", e->name));
  const bool literal = is(TokenType::kName) || is(TokenType::kString) || is(TokenType::kInteger) ||
                       is(TokenType::kFloat) || is_operator("[") || is_operator("{");
  if (is_operator("(")) {
    e->args = parse_call_args();
  } else if (literal && !is_name("else") && !is_name("or") && !is_name("and")) {
    if (is_name("is")) fail("tests cannot be chained with 'is'");
    e->args.positional.push_back(parse_postfix(parse_primary()));
  }
  const int line = e->line;
  e = finish(std::move(e));
  return negated ? finish(make(ExprType::kNot, line, list_of(std::move(e)))) : std::move(e);
}

}  // namespace tinyserve::jinja
