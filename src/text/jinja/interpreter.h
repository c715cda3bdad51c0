#pragma once
// Walks the tree of a template and writes its output. One Interpreter serves one rendering; the tree is shared.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace tinyserve::jinja {

/// Names and their values. Scopes form a chain; jinja2 opens a new one for the body of a loop, a macro, a with, a
/// block set... but not for an if.
struct Scope {
  explicit Scope(std::shared_ptr<Scope> p) : parent(std::move(p)) {}
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> variables;

  const Value* find_here(std::string_view name) const;
  void set(std::string_view name, Value value);
};

class Interpreter {
 public:
  Interpreter(const Limits& limits, Runtime::Clock clock) : runtime_(limits, std::move(clock)) {}

  /// Renders `body` with `variables` in scope. Throws TemplateError; line() then says where.
  std::string run(const Body& body, std::vector<std::pair<std::string, Value>> variables);
  int line() const { return runtime_.line; }
  Runtime& runtime() { return runtime_; }

 private:
  friend class MacroObject;
  friend class LoopObject;
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };
  using ScopePtr = std::shared_ptr<Scope>;

  /// Puts a new scope on the chain while it lives.
  class ScopeGuard {
   public:
    explicit ScopeGuard(Interpreter& self) : ScopeGuard(self, self.scope_) {}
    ScopeGuard(Interpreter& self, ScopePtr parent) : self_(self), saved_(self.scope_) {
      self.scope_ = std::make_shared<Scope>(std::move(parent));
    }
    ~ScopeGuard() { self_.scope_ = std::move(saved_); }
    /// An empty scope for the next turn of a loop; a macro may have kept the old one.
    void renew();

   private:
    Interpreter& self_;
    ScopePtr saved_;
  };

  // Statements.
  Flow execute(const Body& body);
  Flow execute(const Statement& s);
  Flow execute_if(const Statement& s);
  Flow execute_for(const Statement& s);
  Flow run_loop(const Statement& s, const Value& iterable, int loop_depth);
  Flow execute_set_block(const Statement& s);
  Flow execute_with(const Statement& s);
  Flow execute_filter_block(const Statement& s);
  void define_macro(const Statement& s);
  void execute_call_block(const Statement& s);
  Flow capture(const Body& body, std::string& out);
  void emit(std::string_view text);
  void assign(const Target& target, const Value& value);
  Value lookup(std::string_view name);

  // Expressions.
  Value evaluate(const Expr& e);
  Value evaluate_sequence(const Expr& e, SequenceKind kind);
  Value evaluate_dict(const Expr& e);
  Value evaluate_concat(const Expr& e);
  Value evaluate_compare(const Expr& e);
  Value evaluate_condition(const Expr& e);
  Value evaluate_binary(const Expr& e);
  Value evaluate_slice(const Expr& e);
  Value evaluate_call(const Expr& e, const Value* caller = nullptr);
  Value evaluate_filter(const Expr& e, const Value* body = nullptr);
  Value evaluate_test(const Expr& e);
  Args evaluate_args(const CallArgs& args);
  Value call_macro(const MacroDefinition& macro, const ScopePtr& scope, Args& args);

  Runtime runtime_;
  ScopePtr scope_;
  std::string* out_ = nullptr;
};

}  // namespace tinyserve::jinja
