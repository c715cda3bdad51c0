#include "text/jinja/interpreter_objects.h"

namespace tinyserve::jinja {
namespace {

/// loop.cycle or loop.changed.
class LoopMethod : public Object {
 public:
  LoopMethod(LoopObject& loop, bool cycle) : loop_(loop), cycle_(cycle) {}
  Value call(Runtime& runtime, Args& args) override {
    return cycle_ ? loop_.cycle(runtime, args) : loop_.changed(runtime, args);
  }
  std::string describe() const override { return cycle_ ? "loop.cycle" : "loop.changed"; }

 private:
  LoopObject& loop_;
  bool cycle_;
};

}  // namespace

std::optional<Value> MacroObject::attribute(Runtime& runtime, std::string_view name) {
  if (name == "name") return runtime.text(macro_.name);
  if (name == "catch_kwargs") return Value(macro_.uses_kwargs);
  if (name == "catch_varargs") return Value(macro_.uses_varargs);
  if (name == "caller") return Value(macro_.uses_caller);
  if (name != "arguments") return std::nullopt;
  std::vector<Value> names;
  for (const Parameter& p : macro_.parameters) names.push_back(runtime.text(p.name));
  return runtime.tuple(std::move(names));
}

std::optional<Value> LoopObject::attribute(Runtime& runtime, std::string_view name) {
  const int64_t size = static_cast<int64_t>(items_.size());
  if (name == "index") return Value(index_ + 1);
  if (name == "index0") return Value(index_);
  if (name == "first") return Value(index_ == 0);
  if (name == "last") return Value(index_ + 1 == size);
  if (name == "length") return Value(size);
  if (name == "revindex") return Value(size - index_);
  if (name == "revindex0") return Value(size - index_ - 1);
  if (name == "depth") return Value(depth_ + 1);
  if (name == "depth0") return Value(depth_);
  if (name == "previtem") return index_ > 0 ? items_[index_ - 1] : Value::undefined("there is no previous item");
  if (name == "nextitem") return index_ + 1 < size ? items_[index_ + 1] : Value::undefined("there is no next item");
  if (name == "cycle" || name == "changed")
    return Value(static_cast<Object*>(runtime.make<LoopMethod>(*this, name == "cycle")));
  return std::nullopt;
}

std::string LoopObject::describe() const {
  return "LoopContext " + std::to_string(index_ + 1) + "/" + std::to_string(items_.size());
}

Value LoopObject::cycle(Runtime&, Args& args) const {
  if (args.positional.empty()) throw TemplateError("loop.cycle() needs at least one value");
  return args.positional[index_ % args.positional.size()];
}

Value LoopObject::changed(Runtime& runtime, Args& args) {
  bool same = has_changed_ && last_changed_.size() == args.positional.size();
  for (size_t i = 0; same && i < last_changed_.size(); ++i) same = runtime.equal(last_changed_[i], args.positional[i]);
  has_changed_ = true;
  last_changed_ = args.positional;
  return Value(!same);
}

Value LoopObject::call(Runtime& runtime, Args& args) {
  if (args.positional.size() != 1 || !args.keyword.empty())
    throw TemplateError("loop() takes what the next level walks over");
  std::string out;
  std::string* saved = std::exchange(interpreter_.out_, &out);
  auto scope = std::exchange(interpreter_.scope_, scope_);
  try {
    interpreter_.run_loop(statement_, args.positional[0], depth_ + 1);
  } catch (...) {
    interpreter_.out_ = saved;
    interpreter_.scope_ = std::move(scope);
    throw;
  }
  interpreter_.out_ = saved;
  interpreter_.scope_ = std::move(scope);
  return runtime.text(std::move(out));
}

}  // namespace tinyserve::jinja
