// Functions that every template finds, and the lists of filters.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/jinja/registry.h"
#include "text/jinja/runtime.h"

namespace tinyserve::jinja {
namespace {

Value raise_exception(Runtime& runtime, Args& args) {
  ArgReader reader("raise_exception", args);
  const Value& message = reader.required("message");
  reader.done();
  throw TemplateError(runtime.text_of(message));
}

Value strftime_now(Runtime& runtime, Args& args) {
  ArgReader reader("strftime_now", args);
  const Value& format = reader.required("format");
  reader.done();
  if (!format.is_string()) reader.fail("the format must be a string");
  const std::tm now = runtime.local_time();
  // A trailing mark tells an empty result from a buffer that is too small.
  const std::string marked = format.string() + "x";
  if (marked.size() > 1024) reader.fail("the format is longer than 1024 bytes");
  std::array<char, 16384> buffer;
  const size_t n = std::strftime(buffer.data(), buffer.size(), marked.c_str(), &now);
  if (n == 0) reader.fail("the text does not fit the limit of 16 KB");
  return runtime.text(std::string(buffer.data(), n - 1));
}

Value range(Runtime& runtime, Args& args) {
  std::array<int64_t, 3> bounds = {0, 0, 1};
  const size_t n = args.positional.size();
  if (n < 1 || n > 3 || !args.keyword.empty()) throw TemplateError("range takes one to three integers");
  for (size_t i = 0; i < n; ++i) {
    const Value& v = args.positional[i];
    if (v.is_undefined()) throw TemplateError(v.undefined_message());
    if (!v.is_integer()) throw TemplateError(fmt::format("range takes integers, not {}", type_name(v)));
    bounds[n == 1 ? 1 : i] = v.integer();
  }
  const auto [start, stop, step] = bounds;
  if (step == 0) throw TemplateError("the step of range cannot be zero");
  // In 128 bits: the ends may be as far apart as integers go.
  const __int128 distance = step > 0 ? __int128{stop} - start : __int128{start} - stop;
  const __int128 by = step > 0 ? __int128{step} : -__int128{step};
  const __int128 count = distance > 0 ? (distance - 1) / by + 1 : 0;
  if (count > runtime.limits().max_range)
    throw TemplateError(fmt::format("the range has more than the limit of {} items", runtime.limits().max_range));
  std::vector<Value> items;
  runtime.charge(static_cast<size_t>(count) * sizeof(Value));
  for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) items.push_back(Value(start + i * step));
  std::string label =
      step == 1 ? fmt::format("range({}, {})", start, stop) : fmt::format("range({}, {}, {})", start, stop, step);
  return runtime.sequence(std::move(items), SequenceKind::kRange, std::move(label));
}

// dict(x) and namespace(x): pairs or a dict first, then keywords.
Dict dict_of(Runtime& runtime, Args& args, const char* what) {
  Dict out;
  if (args.positional.size() > 1) throw TemplateError(fmt::format("{} takes one value and keywords", what));
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (from.is_dict()) {
      runtime.charge(from.dict().entries.size() * 2 * sizeof(Value));
      out = from.dict();
    } else {
      for (const Value& pair : runtime.items_of(from)) {
        const std::vector<Value> parts = runtime.items_of(pair);
        if (parts.size() != 2) throw TemplateError(fmt::format("{} takes pairs of a key and a value", what));
        out.set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : args.keyword) out.set(runtime.text(name), value);
  return out;
}

Value make_dict(Runtime& runtime, Args& args) { return runtime.dict(dict_of(runtime, args, "dict")); }

Value make_namespace(Runtime& runtime, Args& args) {
  auto* ns = runtime.make<NamespaceObject>(runtime);
  for (const auto& [key, value] : dict_of(runtime, args, "namespace").entries) {
    if (!key.is_string()) throw TemplateError("the names of a namespace must be strings");
    ns->set(key.string(), value);
  }
  return Value(static_cast<Object*>(ns));
}

/// cycler('a', 'b'): next(), current, reset().
class Cycler : public Object {
 public:
  enum class Part : uint8_t { kNext, kReset };
  class Method : public Object {
   public:
    Method(Cycler& cycler, Part part) : cycler_(cycler), part_(part) {}
    Value call(Runtime&, Args&) override {
      if (part_ == Part::kReset) {
        cycler_.position_ = 0;
        return Value::none();
      }
      return cycler_.items_[cycler_.position_++ % cycler_.items_.size()];
    }
    std::string describe() const override { return "method of cycler"; }

   private:
    Cycler& cycler_;
    Part part_;
  };

  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}
  bool callable() const override { return false; }
  Value call(Runtime&, Args&) override { throw TemplateError("a cycler cannot be called"); }
  std::string describe() const override { return "Cycler"; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override {
    if (name == "current") return items_[position_ % items_.size()];
    if (name == "pos") return Value(static_cast<int64_t>(position_ % items_.size()));
    if (name == "next") return Value(static_cast<Object*>(runtime.make<Method>(*this, Part::kNext)));
    if (name == "reset") return Value(static_cast<Object*>(runtime.make<Method>(*this, Part::kReset)));
    return std::nullopt;
  }

 private:
  std::vector<Value> items_;
  size_t position_ = 0;
};

Value cycler(Runtime& runtime, Args& args) {
  if (args.positional.empty() || !args.keyword.empty()) throw TemplateError("cycler needs at least one value");
  return Value(static_cast<Object*>(runtime.make<Cycler>(std::move(args.positional))));
}

/// joiner(', '): nothing the first time it is called, then the separator.
class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  Value call(Runtime& runtime, Args&) override {
    if (std::exchange(used_, true)) return separator_;
    return runtime.text("");
  }
  std::string describe() const override { return "Joiner"; }

 private:
  Value separator_;
  bool used_ = false;
};

Value joiner(Runtime& runtime, Args& args) {
  ArgReader reader("joiner", args);
  const std::string separator = reader.string("sep", ", ");
  reader.done();
  return Value(static_cast<Object*>(runtime.make<Joiner>(runtime.text(separator))));
}

constexpr FunctionEntry kFunctions[] = {
    {"raise_exception", raise_exception},
    {"strftime_now", strftime_now},
    {"range", range},
    {"namespace", make_namespace},
    {"dict", make_dict},
    {"cycler", cycler},
    {"joiner", joiner},
};

}  // namespace

std::span<const FunctionEntry> functions() { return kFunctions; }

const FilterEntry* find_filter(std::string_view name) {
  for (const auto& filters : {text_filters(), number_filters(), sequence_filters()})
    for (const FilterEntry& filter : filters)
      if (filter.name == name) return &filter;
  return nullptr;
}

}  // namespace tinyserve::jinja
