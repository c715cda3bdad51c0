#include "text/jinja/interpreter.h"

#include <fmt/format.h>

#include "text/jinja/interpreter_objects.h"
#include "text/jinja/registry.h"

namespace tinyserve::jinja {
namespace {

/// A function such as range or raise_exception as a value.
class FunctionObject : public Object {
 public:
  explicit FunctionObject(const FunctionEntry& entry) : entry_(entry) {}
  Value call(Runtime& runtime, Args& args) override { return entry_.call(runtime, args); }
  std::string describe() const override { return "function " + std::string(entry_.name); }

 private:
  const FunctionEntry& entry_;
};

}  // namespace

const Value* Scope::find_here(std::string_view name) const {
  for (const auto& [key, value] : variables)
    if (key == name) return &value;
  return nullptr;
}

void Scope::set(std::string_view name, Value value) {
  for (auto& [key, old] : variables) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  variables.emplace_back(name, std::move(value));
}

void Interpreter::ScopeGuard::renew() {
  if (self_.scope_.use_count() == 1) {
    self_.scope_->variables.clear();
  } else {
    self_.runtime_.charge(sizeof(Scope) + 64);
    self_.scope_ = std::make_shared<Scope>(self_.scope_->parent);
  }
}

std::string Interpreter::run(const Body& body, std::vector<std::pair<std::string, Value>> variables) {
  std::string out;
  out_ = &out;
  auto globals = std::make_shared<Scope>(nullptr);
  for (const FunctionEntry& f : functions())
    globals->variables.emplace_back(f.name, Value(static_cast<Object*>(runtime_.make<FunctionObject>(f))));
  auto context = std::make_shared<Scope>(std::move(globals));
  context->variables = std::move(variables);
  // What the template sets at its top level lives beside, not over, what it was given.
  scope_ = std::make_shared<Scope>(std::move(context));
  execute(body);
  return out;
}

void Interpreter::emit(std::string_view text) {
  // Text printed into a macro or block counts again each time it is handed on: that is copying, too.
  runtime_.charge(text.size());
  if (out_->size() + text.size() > runtime_.limits().max_output_bytes)
    throw TemplateError(
        fmt::format("the rendered text is longer than the limit of {} bytes", runtime_.limits().max_output_bytes));
  out_->append(text);
}

Value Interpreter::lookup(std::string_view name) {
  for (const Scope* s = scope_.get(); s; s = s->parent.get()) {
    runtime_.step(static_cast<int64_t>(s->variables.size() / 32));
    if (const Value* found = s->find_here(name)) return *found;
  }
  runtime_.charge(64);
  return Value::undefined(fmt::format("'{}' is undefined", name));
}

void Interpreter::assign(const Target& target, const Value& value) {
  runtime_.step();
  switch (target.type) {
    case Target::kName:
      runtime_.step(static_cast<int64_t>(scope_->variables.size() / 32));
      scope_->set(target.name, value);
      return;
    case Target::kNamespace: {
      const Value object = lookup(target.name);
      auto* ns = object.is_object() ? dynamic_cast<NamespaceObject*>(object.object()) : nullptr;
      if (!ns)
        throw TemplateError(
            fmt::format("cannot set '{}.{}': only namespace() objects have attributes that can "
                        "be set",
                        target.name, target.attribute));
      ns->set(target.attribute, value);
      return;
    }
    case Target::kTuple: {
      if (value.is_undefined()) throw TemplateError(value.undefined_message());
      const std::vector<Value> items = runtime_.items_of(value);
      if (items.size() != target.items.size())
        throw TemplateError(fmt::format("cannot unpack {} values into {} names", items.size(), target.items.size()));
      for (size_t i = 0; i < items.size(); ++i) assign(target.items[i], items[i]);
      return;
    }
  }
}

Interpreter::Flow Interpreter::capture(const Body& body, std::string& out) {
  std::string* saved = std::exchange(out_, &out);
  try {
    const Flow flow = execute(body);
    out_ = saved;
    return flow;
  } catch (...) {
    out_ = saved;
    throw;
  }
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  for (const auto& s : body) {
    const Flow flow = execute(*s);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute(const Statement& s) {
  runtime_.step();
  const Runtime::Depth depth(runtime_);
  runtime_.line = s.line;
  switch (s.type) {
    case StatementType::kText:
      emit(s.text);
      return Flow::kNormal;
    case StatementType::kPrint:
      for (const ExprPtr& e : s.exprs) {
        const Value value = evaluate(*e);
        if (value.is_string())
          emit(value.string());
        else
          emit(runtime_.text_of(value));
      }
      return Flow::kNormal;
    case StatementType::kIf:
      return execute_if(s);
    case StatementType::kFor:
      return execute_for(s);
    case StatementType::kSet:
      assign(s.target, evaluate(*s.exprs[0]));
      return Flow::kNormal;
    case StatementType::kSetBlock:
      return execute_set_block(s);
    case StatementType::kMacro:
      define_macro(s);
      return Flow::kNormal;
    case StatementType::kCallBlock:
      execute_call_block(s);
      return Flow::kNormal;
    case StatementType::kFilterBlock:
      return execute_filter_block(s);
    case StatementType::kWith:
      return execute_with(s);
    case StatementType::kScope: {
      const ScopeGuard scope(*this);
      return execute(s.body);
    }
    case StatementType::kBreak:
      return Flow::kBreak;
    case StatementType::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute_if(const Statement& s) {
  for (const auto& [test, body] : s.branches)
    if (truth(evaluate(*test))) return execute(body);
  return execute(s.orelse);
}

Interpreter::Flow Interpreter::execute_for(const Statement& s) {
  const Value iterable = evaluate(*s.exprs[0]);
  return run_loop(s, iterable, 0);
}

Interpreter::Flow Interpreter::run_loop(const Statement& s, const Value& iterable, int loop_depth) {
  std::vector<Value> items = runtime_.items_of(iterable);
  const bool lazy_filter = s.exprs[1] && !s.uses_loop;
  const auto passes = [&](const Value& item) {
    ScopeGuard scope(*this);
    assign(s.target, item);
    return truth(evaluate(*s.exprs[1]));
  };
  if (s.exprs[1] && s.uses_loop) {  // loop.length and loop.last count what passes
    std::vector<Value> kept;
    for (Value& item : items)
      if (passes(item)) kept.push_back(std::move(item));
    items = std::move(kept);
  }
  LoopObject* loop = nullptr;
  if (s.uses_loop) {
    runtime_.charge(items.size() * sizeof(Value));
    loop = runtime_.make<LoopObject>(*this, s, s.recursive ? scope_ : nullptr, items, loop_depth);
  }
  bool any = false;
  {
    ScopeGuard scope(*this);
    for (size_t i = 0; i < items.size(); ++i) {
      runtime_.step();
      if (lazy_filter && !passes(items[i])) continue;
      any = true;
      scope.renew();
      assign(s.target, items[i]);
      if (loop) {
        loop->move_to(i);
        scope_->set("loop", Value(static_cast<Object*>(loop)));
      }
      if (execute(s.body) == Flow::kBreak) break;
    }
  }
  if (any) return Flow::kNormal;
  const ScopeGuard scope(*this);
  return execute(s.orelse);
}

Interpreter::Flow Interpreter::execute_set_block(const Statement& s) {
  std::string text;
  Flow flow;
  {
    const ScopeGuard scope(*this);
    flow = capture(s.body, text);
  }
  if (flow != Flow::kNormal) return flow;
  Value value = runtime_.text(std::move(text));
  if (s.exprs[0]) value = evaluate_filter(*s.exprs[0], &value);
  assign(s.target, value);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute_filter_block(const Statement& s) {
  std::string text;
  const ScopeGuard scope(*this);
  const Flow flow = capture(s.body, text);
  if (flow != Flow::kNormal) return flow;
  const Value body = runtime_.text(std::move(text));
  emit(runtime_.text_of(evaluate_filter(*s.exprs[0], &body)));
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute_with(const Statement& s) {
  std::vector<Value> values;  // all are evaluated in the scope outside
  for (const ExprPtr& e : s.exprs) values.push_back(evaluate(*e));
  const ScopeGuard scope(*this);
  for (size_t i = 0; i < values.size(); ++i) assign(s.targets[i], values[i]);
  return execute(s.body);
}

void Interpreter::define_macro(const Statement& s) {
  auto* macro = runtime_.make<MacroObject>(*this, *s.macro, scope_);
  scope_->set(s.macro->name, Value(static_cast<Object*>(macro)));
}

void Interpreter::execute_call_block(const Statement& s) {
  const Value caller(static_cast<Object*>(runtime_.make<MacroObject>(*this, *s.macro, scope_)));
  emit(runtime_.text_of(evaluate_call(*s.exprs[0], &caller)));
}

Value Interpreter::call_macro(const MacroDefinition& macro, const ScopePtr& scope, Args& args) {
  const ScopeGuard guard(*this, scope);
  const size_t count = macro.parameters.size();
  const auto take_keyword = [&](std::string_view name) -> std::optional<Value> {
    for (auto it = args.keyword.begin(); it != args.keyword.end(); ++it) {
      if (it->first != name) continue;
      Value value = std::move(it->second);
      args.keyword.erase(it);
      return value;
    }
    return std::nullopt;
  };
  bool caller_is_parameter = false;
  for (size_t i = 0; i < count; ++i) {
    const Parameter& p = macro.parameters[i];
    caller_is_parameter |= p.name == "caller";
    if (i < args.positional.size()) {
      scope_->set(p.name, args.positional[i]);
    } else if (auto given = take_keyword(p.name)) {
      scope_->set(p.name, *std::move(given));
    } else if (p.default_value) {
      scope_->set(p.name, evaluate(*p.default_value));  // may use the parameters before it
    } else {
      scope_->set(p.name, Value::undefined(fmt::format("parameter '{}' was not provided", p.name)));
    }
  }
  if (macro.uses_caller && !caller_is_parameter) {
    auto caller = take_keyword("caller");
    scope_->set("caller", caller ? *std::move(caller) : Value::undefined("no caller defined"));
  }
  if (macro.uses_kwargs) {
    Dict rest;
    for (auto& [name, value] : args.keyword) rest.set(runtime_.text(name), std::move(value));
    scope_->set("kwargs", runtime_.dict(std::move(rest)));
  } else if (!args.keyword.empty()) {
    throw TemplateError(fmt::format("macro '{}' takes no argument '{}'", macro.name, args.keyword[0].first));
  }
  if (macro.uses_varargs) {
    std::vector<Value> rest;
    for (size_t i = count; i < args.positional.size(); ++i) rest.push_back(std::move(args.positional[i]));
    scope_->set("varargs", runtime_.tuple(std::move(rest)));
  } else if (args.positional.size() > count) {
    throw TemplateError(fmt::format("macro '{}' takes not more than {} arguments", macro.name, count));
  }
  std::string out;
  capture(macro.body, out);
  return runtime_.text(std::move(out));
}

}  // namespace tinyserve::jinja
