#pragma once
// The objects that carry parts of the tree: macros, and `loop`.

#include "text/jinja/interpreter.h"

namespace tinyserve::jinja {

class MacroObject : public Object {
 public:
  MacroObject(Interpreter& interpreter, const MacroDefinition& macro, std::shared_ptr<Scope> scope)
      : interpreter_(interpreter), macro_(macro), scope_(scope.get()) {
    interpreter.runtime().retain(std::move(scope));
  }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  Value call(Runtime&, Args& args) override {
    return interpreter_.call_macro(macro_, std::shared_ptr<Scope>(std::shared_ptr<Scope>(), scope_), args);
  }
  bool printable() const override { return true; }
  std::string describe() const override { return "Macro '" + macro_.name + "'"; }

 private:
  Interpreter& interpreter_;
  const MacroDefinition& macro_;
  Scope* scope_;  ///< kept by the Runtime: owning it here would close a cycle through the macro's own name
};

/// The variable `loop` of a for.
class LoopObject : public Object {
 public:
  LoopObject(Interpreter& interpreter, const Statement& statement, std::shared_ptr<Scope> scope,
             const std::vector<Value>& items, int depth)
      : interpreter_(interpreter), statement_(statement), scope_(std::move(scope)), items_(items), depth_(depth) {}
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  bool callable() const override { return statement_.recursive; }
  Value call(Runtime& runtime, Args& args) override;
  bool printable() const override { return true; }
  std::string describe() const override;

  void move_to(size_t index) { index_ = static_cast<int64_t>(index); }
  Value cycle(Runtime& runtime, Args& args) const;
  Value changed(Runtime& runtime, Args& args);

 private:
  Interpreter& interpreter_;
  const Statement& statement_;
  std::shared_ptr<Scope> scope_;  ///< around the loop, for recursive calls
  std::vector<Value> items_;
  int depth_;
  int64_t index_ = 0;
  std::vector<Value> last_changed_;
  bool has_changed_ = false;
};

}  // namespace tinyserve::jinja
