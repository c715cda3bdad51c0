#pragma once
// One rendering: its limits, its clock and the objects it makes. Filters, functions and operators make every new
// value through it, so that nothing escapes the accounting.

#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/error.h"
#include "text/jinja/limits.h"
#include "text/jinja/value.h"

namespace tinyserve::jinja {

class Runtime {
 public:
  using Clock = std::function<std::tm()>;

  Runtime(const Limits& limits, Clock clock) : limits_(limits), clock_(std::move(clock)) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  const Limits& limits() const { return limits_; }
  std::tm local_time() const { return clock_(); }

  /// Counts work. Throws TemplateError past the limit.
  void step(int64_t n = 1) {
    if ((steps_ += n) > limits_.max_steps) [[unlikely]]
      fail_steps();
  }
  /// Counts the work of handling this many bytes.
  void step_bytes(size_t bytes) { step(static_cast<int64_t>(bytes / 64)); }
  /// Counts bytes that are about to be made. Call before making them: sizes come from the template.
  void charge(size_t bytes);
  /// charge() for a string of this many bytes, which also has a limit of its own.
  void charge_text(size_t bytes);

  Value text(std::string bytes, bool safe = false);
  Value sequence(std::vector<Value> items, SequenceKind kind = SequenceKind::kList, std::string label = {});
  Value iterator(std::vector<Value> items) { return sequence(std::move(items), SequenceKind::kIterator); }
  Value tuple(std::vector<Value> items) { return sequence(std::move(items), SequenceKind::kTuple); }
  Value dict(Dict entries);

  template <class T, class... A>
  T* make(A&&... args) {
    charge(sizeof(T) + 64);
    auto object = std::make_unique<T>(std::forward<A>(args)...);
    T* raw = object.get();
    objects_.push_back(std::move(object));
    return raw;
  }
  /// Keeps something alive until the rendering ends.
  void retain(std::shared_ptr<void> thing) { retained_.push_back(std::move(thing)); }

  /// What a for loop walks over: items, keys of a dict, characters of a string. Takes the rest of an iterator.
  std::vector<Value> items_of(const Value& value);
  /// len(). Throws for what has none.
  int64_t length_of(const Value& value) const;
  /// str() and ==, <, with the work counted.
  std::string text_of(const Value& value);
  bool equal(const Value& a, const Value& b);
  int compare(const Value& a, const Value& b);
  bool contains(const Value& container, const Value& item);

  /// object.name and object[key] as jinja2 looks them up; undefined when there is none.
  Value attribute(const Value& object, std::string_view name);
  Value item(const Value& object, const Value& key);
  Value call(const Value& callee, Args& args);
  Value apply_filter(std::string_view name, const Value& input, Args& args);
  bool apply_test(std::string_view name, const Value& input, Args& args);

  int line = 0;  ///< of the construct being evaluated, for messages

  /// Counts nesting while it lives.
  class Depth {
   public:
    explicit Depth(Runtime& runtime) : runtime_(runtime) {
      if (runtime_.depth_ >= runtime_.limits_.max_depth) runtime_.fail_depth();
      ++runtime_.depth_;
    }
    ~Depth() { --runtime_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Runtime& runtime_;
  };

 private:
  [[noreturn]] void fail_steps() const;
  [[noreturn]] void fail_depth() const;
  void check_container(int depth, size_t weight) const;
  Value method(const Value& object, std::string_view name);

  const Limits limits_;
  const Clock clock_;
  int64_t steps_ = 0;
  size_t bytes_ = 0;
  int depth_ = 0;
  std::vector<std::unique_ptr<Object>> objects_;
  std::vector<std::shared_ptr<void>> retained_;
};

/// A method that was taken from its value without being called.
class BoundMethod : public Object {
 public:
  BoundMethod(Value self, std::string name) : self_(std::move(self)), name_(std::move(name)) {}
  Value call(Runtime& runtime, Args& args) override;
  std::string describe() const override { return "method '" + name_ + "' of " + type_name(self_); }

 private:
  Value self_;
  std::string name_;
};

/// namespace(...): the one value that {% set ns.name = ... %} may change.
class NamespaceObject : public Object {
 public:
  explicit NamespaceObject(Runtime& runtime) : runtime_(runtime) {}
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  bool callable() const override { return false; }
  bool printable() const override { return true; }
  Value call(Runtime& runtime, Args& args) override;
  std::string describe() const override;
  void set(std::string_view name, Value value);

 private:
  Runtime& runtime_;
  std::vector<std::pair<std::string, Value>> attributes_;
  mutable bool printing_ = false;
};

/// Walks the arguments of a call in the order in which the callee declares them.
class ArgReader {
 public:
  /// `callee` names the call in messages: "filter 'join'".
  ArgReader(std::string callee, Args& args) : callee_(std::move(callee)), args_(args) {}
  /// The next parameter, or null when it was not given.
  const Value* next(std::string_view name);
  const Value& required(std::string_view name);
  /// An integer parameter; a float or a string is an error, as in Python.
  int64_t integer(std::string_view name, int64_t fallback);
  bool boolean(std::string_view name, bool fallback);
  std::string string(std::string_view name, std::string_view fallback);
  /// Throws when arguments are left that no parameter took.
  void done() const;
  [[noreturn]] void fail(const std::string& message) const { throw TemplateError(callee_ + ": " + message); }

 private:
  std::string callee_;
  Args& args_;
  size_t next_ = 0;
  size_t taken_keywords_ = 0;
};

}  // namespace tinyserve::jinja
