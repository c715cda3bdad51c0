#include "text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/error.h"
#include "text/jinja/limits.h"
#include "text/jinja/parser_internal.h"

namespace tinyserve::jinja {
namespace {

std::string describe(const Token& token) {
  switch (token.type) {
    case TokenType::kEnd:
      return "the end of the template";
    case TokenType::kBlockEnd:
      return "'%}'";
    case TokenType::kVariableEnd:
      return "'}}'";
    case TokenType::kBlockBegin:
      return "'{%'";
    case TokenType::kVariableBegin:
      return "'{{'";
    case TokenType::kData:
      return "text";
    case TokenType::kString:
      return "a string";
    default:
      return "'" + token.text + "'";
  }
}

bool reserved_constant(std::string_view name) {
  return name == "true" || name == "false" || name == "none" || name == "True" || name == "False" || name == "None";
}

}  // namespace

Parser::Nesting::Nesting(Parser& parser) : parser_(parser) {
  if (++parser_.nesting_ > kMaxParseDepth) {
    --parser_.nesting_;  // the destructor of an object whose constructor throws does not run
    parser_.fail(fmt::format("expressions or blocks nest more than {} deep", kMaxParseDepth));
  }
}

void Parser::fail(const std::string& message, int line) const {
  throw LocatedError(name_, line ? line : current().line, message);
}

void Parser::fail_unexpected(const std::string& wanted) const {
  fail(fmt::format("expected {}, found {}", wanted, describe(current())));
}

bool Parser::skip_name(std::string_view text) {
  if (!is_name(text)) return false;
  skip();
  return true;
}

bool Parser::skip_operator(std::string_view text) {
  if (!is_operator(text)) return false;
  skip();
  return true;
}

void Parser::expect_operator(std::string_view text) {
  if (!skip_operator(text)) fail_unexpected(fmt::format("'{}'", text));
}

void Parser::expect_block_end() {
  if (!is(TokenType::kBlockEnd)) fail_unexpected("'%}'");
  skip();
}

std::string Parser::expect_name(const char* what) {
  if (!is(TokenType::kName)) fail_unexpected(what);
  std::string text = current().text;
  skip();
  return text;
}

Body Parser::parse_template() {
  Body body = parse_body({});
  if (!is(TokenType::kEnd)) fail_unexpected("the end of the template");
  if (!unknown_.empty()) fail(unknown_[0].second, unknown_[0].first);
  return body;
}

// Statements up to a tag whose name is one of end_names; that name is then the current token.
Body Parser::parse_body(std::initializer_list<std::string_view> end_names) {
  const Nesting nesting(*this);
  Body body;
  while (true) {
    const int line = current().line;
    switch (current().type) {
      case TokenType::kEnd:
        if (end_names.size()) {
          std::string wanted;
          for (const std::string_view n : end_names)
            wanted += fmt::format("{}{{% {} %}}", wanted.empty() ? "" : " or ", n);
          fail("the template ends where " + wanted + " is needed");
        }
        return body;
      case TokenType::kData: {
        auto s = std::make_unique<Statement>();
        s->type = StatementType::kText;
        s->line = line;
        s->text = current().text;
        body.push_back(std::move(s));
        skip();
        break;
      }
      case TokenType::kVariableBegin: {
        skip();
        auto s = std::make_unique<Statement>();
        s->type = StatementType::kPrint;
        s->line = line;
        s->exprs.push_back(parse_tuple());
        if (!is(TokenType::kVariableEnd)) fail_unexpected("'}}'");
        skip();
        body.push_back(std::move(s));
        break;
      }
      case TokenType::kBlockBegin:
        skip();
        if (is(TokenType::kName) && std::find(end_names.begin(), end_names.end(), current().text) != end_names.end())
          return body;
        body.push_back(parse_statement());
        expect_block_end();
        break;
      default:
        fail_unexpected("text or a tag");
    }
  }
}

// The rest of an opening tag, then its body.
Body Parser::parse_block_body(std::initializer_list<std::string_view> end_names) {
  skip_operator(":");
  expect_block_end();
  return parse_body(end_names);
}

std::unique_ptr<Statement> Parser::parse_statement() {
  const int line = current().line;
  const std::string tag = expect_name("the name of a tag");
  auto s = std::make_unique<Statement>();
  s->line = line;
  if (tag == "if") {
    parse_if(*s);
  } else if (tag == "for") {
    parse_for(*s);
  } else if (tag == "set") {
    parse_set(*s);
  } else if (tag == "macro") {
    parse_macro(*s);
  } else if (tag == "call") {
    parse_call_block(*s);
  } else if (tag == "with") {
    parse_with(*s);
  } else if (tag == "filter") {
    s->type = StatementType::kFilterBlock;
    s->exprs.push_back(parse_filter_chain(false));
    s->body = parse_block_body({"endfilter"});
    skip();
  } else if (tag == "generation") {
    // transformers marks the assistant's text with it for training masks; when rendering it only makes a scope.
    s->type = StatementType::kScope;
    s->body = parse_block_body({"endgeneration"});
    skip();
  } else if (tag == "print") {
    s->type = StatementType::kPrint;
    while (!is(TokenType::kBlockEnd)) {
      if (!s->exprs.empty()) expect_operator(",");
      s->exprs.push_back(parse_expression());
    }
  } else if (tag == "break" || tag == "continue") {
    if (!loops_) fail(fmt::format("{{% {} %}} outside a loop", tag), line);
    s->type = tag == "break" ? StatementType::kBreak : StatementType::kContinue;
  } else if (tag == "block" || tag == "extends" || tag == "include" || tag == "import" || tag == "from" ||
             tag == "autoescape" || tag == "do" || tag == "trans" || tag == "debug") {
    fail(fmt::format("the tag {{% {} %}} is not supported in chat templates", tag), line);
  } else {
    fail(fmt::format("unknown tag '{}'", tag), line);
  }
  return s;
}

void Parser::parse_if(Statement& s) {
  s.type = StatementType::kIf;
  const size_t unknown = unknown_.size();
  while (true) {
    ExprPtr test = parse_tuple(false);
    Body body = parse_block_body({"elif", "else", "endif"});
    s.branches.emplace_back(std::move(test), std::move(body));
    if (skip_name("elif")) continue;
    if (skip_name("else")) s.orelse = parse_block_body({"endif"});
    skip();
    break;
  }
  unknown_.resize(unknown);
}

void Parser::parse_for(Statement& s) {
  s.type = StatementType::kFor;
  s.target = parse_target(false);
  if (!skip_name("in")) fail_unexpected("'in'");
  s.exprs.push_back(parse_tuple(false));
  s.exprs.push_back(skip_name("if") ? parse_expression() : nullptr);
  s.recursive = skip_name("recursive");
  const uint8_t outer = std::exchange(uses_, 0);
  ++loops_;
  s.body = parse_block_body({"endfor", "else"});
  --loops_;
  s.uses_loop = uses_ & kLoop;
  uses_ = (uses_ & ~kLoop) | outer;
  if (skip_name("else")) s.orelse = parse_block_body({"endfor"});
  skip();
}

void Parser::parse_set(Statement& s) {
  s.target = parse_target(true);
  if (skip_operator("=")) {
    s.type = StatementType::kSet;
    s.exprs.push_back(parse_tuple());
    return;
  }
  s.type = StatementType::kSetBlock;
  s.exprs.push_back(is_operator("|") ? parse_filter_chain(true) : nullptr);
  s.body = parse_block_body({"endset"});
  skip();
}

void Parser::parse_signature(MacroDefinition& macro) {
  expect_operator("(");
  while (!is_operator(")")) {
    if (!macro.parameters.empty()) expect_operator(",");
    Parameter p;
    p.name = expect_name("the name of a parameter");
    if (reserved_constant(p.name)) fail(fmt::format("cannot assign to '{}'", p.name));
    for (const Parameter& other : macro.parameters)
      if (other.name == p.name) fail(fmt::format("the parameter '{}' is given twice", p.name));
    if (skip_operator("="))
      p.default_value = parse_expression();
    else if (!macro.parameters.empty() && macro.parameters.back().default_value)
      fail("a parameter without a default follows one with a default");
    macro.parameters.push_back(std::move(p));
  }
  skip();
}

void Parser::parse_macro_body(MacroDefinition& macro, std::string_view end_name) {
  const uint8_t outer = std::exchange(uses_, 0);
  const int loops = std::exchange(loops_, 0);
  macro.body = parse_block_body({end_name});
  skip();
  loops_ = loops;
  macro.uses_varargs = uses_ & kVarargs;
  macro.uses_kwargs = uses_ & kKwargs;
  macro.uses_caller = uses_ & kCaller;
  uses_ |= outer;
}

void Parser::parse_macro(Statement& s) {
  s.type = StatementType::kMacro;
  s.macro = std::make_unique<MacroDefinition>();
  s.macro->name = expect_name("the name of the macro");
  if (reserved_constant(s.macro->name)) fail(fmt::format("cannot assign to '{}'", s.macro->name));
  parse_signature(*s.macro);
  parse_macro_body(*s.macro, "endmacro");
}

void Parser::parse_call_block(Statement& s) {
  s.type = StatementType::kCallBlock;
  s.macro = std::make_unique<MacroDefinition>();
  s.macro->name = "caller";
  if (is_operator("(")) parse_signature(*s.macro);
  s.exprs.push_back(parse_expression());
  if (s.exprs[0]->type != ExprType::kCall) fail("{% call %} needs the call of a macro", s.line);
  parse_macro_body(*s.macro, "endcall");
}

void Parser::parse_with(Statement& s) {
  s.type = StatementType::kWith;
  while (!is(TokenType::kBlockEnd)) {
    if (!s.targets.empty()) expect_operator(",");
    s.targets.push_back(parse_target(false));
    expect_operator("=");
    s.exprs.push_back(parse_expression());
  }
  s.body = parse_block_body({"endwith"});
  skip();
}

Target Parser::parse_target(bool allow_namespace) {
  Target target;
  target.line = current().line;
  bool tuple = false;
  while (true) {
    if (tuple && !(is(TokenType::kName) && !is_name("in")) && !is_operator("(")) break;  // a trailing comma
    target.items.push_back(parse_target_item(allow_namespace));
    if (!skip_operator(",")) break;
    tuple = true;
  }
  if (!tuple) return std::move(target.items[0]);
  target.type = Target::kTuple;
  return target;
}

Target Parser::parse_target_item(bool allow_namespace) {
  const Nesting nesting(*this);
  if (skip_operator("(")) {
    Target target = parse_target(allow_namespace);
    expect_operator(")");
    return target;
  }
  Target target;
  target.line = current().line;
  target.name = expect_name("a name to assign to");
  if (reserved_constant(target.name)) fail(fmt::format("cannot assign to '{}'", target.name));
  if (allow_namespace && skip_operator(".")) {
    target.type = Target::kNamespace;
    target.attribute = expect_name("the name of an attribute");
  } else if (is_operator(".") || is_operator("[")) {
    fail("only names and attributes of namespaces can be assigned to");
  }
  return target;
}

Body parse(std::string_view source, const std::string& name) {
  return Parser(tokenize(source, name), name).parse_template();
}

}  // namespace tinyserve::jinja
