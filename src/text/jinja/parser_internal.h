#pragma once
// The parser's class, shared by its two files: expressions (parser_expressions.cc) and statements (parser.cc).

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace tinyserve::jinja {

class Parser {
 public:
  Parser(std::vector<Token> tokens, const std::string& name) : tokens_(std::move(tokens)), name_(name) {}

  Body parse_template();

 private:
  // The special names whose use inside a loop or a macro changes what must be prepared for it.
  enum Uses : uint8_t { kLoop = 1, kVarargs = 2, kKwargs = 4, kCaller = 8 };

  /// Counts the nesting of the recursive descent while it lives.
  class Nesting {
   public:
    explicit Nesting(Parser& parser);
    ~Nesting() { --parser_.nesting_; }

   private:
    Parser& parser_;
  };

  [[noreturn]] void fail(const std::string& message, int line = 0) const;
  [[noreturn]] void fail_unexpected(const std::string& wanted) const;
  const Token& current() const { return tokens_[pos_]; }
  const Token& look() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  void skip() { pos_ = std::min(pos_ + 1, tokens_.size() - 1); }
  bool is(TokenType type) const { return current().type == type; }
  bool is_name(std::string_view text) const { return is(TokenType::kName) && current().text == text; }
  bool is_operator(std::string_view text) const { return is(TokenType::kOperator) && current().text == text; }
  bool skip_name(std::string_view text);
  bool skip_operator(std::string_view text);
  void expect_operator(std::string_view text);
  void expect_block_end();
  std::string expect_name(const char* what);

  // Statements.
  Body parse_body(std::initializer_list<std::string_view> end_names);
  Body parse_block_body(std::initializer_list<std::string_view> end_names);
  std::unique_ptr<Statement> parse_statement();
  void parse_if(Statement& s);
  void parse_for(Statement& s);
  void parse_set(Statement& s);
  void parse_macro(Statement& s);
  void parse_call_block(Statement& s);
  void parse_with(Statement& s);
  void parse_signature(MacroDefinition& macro);
  void parse_macro_body(MacroDefinition& macro, std::string_view end_name);
  Target parse_target(bool allow_namespace);
  Target parse_target_item(bool allow_namespace);

  // Expressions.
  ExprPtr make(ExprType type, int line, std::vector<ExprPtr> children = {});
  ExprPtr finish(ExprPtr e) const;
  ExprPtr parse_expression(bool with_condition = true);
  ExprPtr parse_tuple(bool with_condition = true, bool in_parentheses = false);
  bool at_tuple_end() const;
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filter = true);
  ExprPtr parse_primary();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr e);
  ExprPtr parse_filters(ExprPtr e);
  ExprPtr parse_subscript(ExprPtr e);
  ExprPtr parse_index(ExprPtr object, int line);
  ExprPtr parse_call(ExprPtr callee);
  CallArgs parse_call_args();
  ExprPtr parse_filter(ExprPtr input);
  ExprPtr parse_filter_chain(bool leading_pipe);
  ExprPtr parse_test(ExprPtr e);

  std::vector<Token> tokens_;
  const std::string& name_;
  size_t pos_ = 0;
  int nesting_ = 0;
  /// Unknown filters and tests. They are errors when the template ends, except inside an if, where they fail only when
  /// reached, as in jinja2: templates ask what there is before they use it.
  std::vector<std::pair<int, std::string>> unknown_;
  int loops_ = 0;  ///< inside a for of the same macro: break and continue are allowed
  uint8_t uses_ = 0;
};

}  // namespace tinyserve::jinja
