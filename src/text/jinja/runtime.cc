#include "text/jinja/runtime.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/registry.h"
#include "text/jinja/unicode.h"

namespace tinyserve::jinja {

void Runtime::fail_steps() const {
  throw TemplateError(fmt::format("rendering took more than the limit of {} steps", limits_.max_steps));
}

void Runtime::fail_depth() const {
  throw TemplateError(
      fmt::format("expressions, blocks and macro calls nest deeper than the limit of {}", limits_.max_depth));
}

void Runtime::charge(size_t bytes) {
  if (bytes > limits_.max_memory_bytes || (bytes_ += bytes) > limits_.max_memory_bytes)
    throw TemplateError(
        fmt::format("the values made while rendering take more than the limit of {} bytes", limits_.max_memory_bytes));
  step_bytes(bytes);
}

void Runtime::charge_text(size_t bytes) {
  if (bytes > limits_.max_output_bytes)
    throw TemplateError(
        fmt::format("a text of {} bytes is longer than the output limit of {} bytes", bytes, limits_.max_output_bytes));
  charge(bytes + 48);
}

Value Runtime::text(std::string bytes, bool safe) {
  charge_text(bytes.size());
  return Value::text(std::move(bytes), safe);
}

void Runtime::check_container(int depth, size_t weight) const {
  if (depth > limits_.max_value_depth)
    throw TemplateError(fmt::format("lists and dicts nest more than {} deep", limits_.max_value_depth));
  // Sharing lets a few bytes of memory stand for an endless text; the weight counts shared parts each time.
  if (weight > 4 * limits_.max_output_bytes)
    throw TemplateError(
        fmt::format("a list or dict stands for more than the limit of {} bytes", 4 * limits_.max_output_bytes));
}

Value Runtime::sequence(std::vector<Value> items, SequenceKind kind, std::string label) {
  charge(items.size() * sizeof(Value) + 64);
  auto s = std::make_shared<Sequence>();
  s->kind = kind;
  for (const Value& item : items) {
    s->depth = std::max(s->depth, item.depth() + 1);
    s->weight += item.weight();
  }
  s->items = std::move(items);
  s->label = std::move(label);
  check_container(s->depth, s->weight);
  return Value(Value::SequencePtr(std::move(s)));
}

Value Runtime::dict(Dict entries) {
  charge(entries.entries.size() * (2 * sizeof(Value) + 32) + 128);
  check_container(entries.depth, entries.weight);
  return Value(Value::DictPtr(std::make_shared<const Dict>(std::move(entries))));
}

std::vector<Value> Runtime::items_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return {};
    case Kind::kString: {
      std::vector<Value> out;
      charge(static_cast<size_t>(value.text().num_chars) * (sizeof(Value) + sizeof(Text)));
      for (const std::string_view c : split_chars(value.string())) out.push_back(Value::text(std::string(c)));
      return out;
    }
    case Kind::kSequence: {
      const Sequence& s = value.sequence();
      charge(s.items.size() * sizeof(Value));
      if (s.kind != SequenceKind::kIterator) return s.items;
      const size_t begin = std::exchange(s.position, s.items.size());
      return {s.items.begin() + begin, s.items.end()};
    }
    case Kind::kDict: {
      std::vector<Value> out;
      charge(value.dict().entries.size() * sizeof(Value));
      for (const auto& entry : value.dict().entries) out.push_back(entry.first);
      return out;
    }
    default:
      throw TemplateError(fmt::format("a value of type {} cannot be iterated over", type_name(value)));
  }
}

int64_t Runtime::length_of(const Value& value) const {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return value.text().num_chars;
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().entries.size());
    case Kind::kSequence:
      if (!value.is_sequence(SequenceKind::kIterator)) return static_cast<int64_t>(value.sequence().items.size());
      break;
    default:
      break;
  }
  throw TemplateError(fmt::format("a value of type {} has no length{}", type_name(value),
                                  value.is_sequence() ? "; make it a list with |list first" : ""));
}

std::string Runtime::text_of(const Value& value) {
  step_bytes(value.weight());
  return to_text(value);
}

bool Runtime::equal(const Value& a, const Value& b) {
  step_bytes(std::min(a.weight(), b.weight()));
  return jinja::equal(a, b);
}

int Runtime::compare(const Value& a, const Value& b) {
  step_bytes(std::min(a.weight(), b.weight()));
  return jinja::compare(a, b);
}

bool Runtime::contains(const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (item.is_undefined()) throw TemplateError(item.undefined_message());
      if (!item.is_string())
        throw TemplateError(fmt::format("'in <string>' needs a string on its left, not {}", type_name(item)));
      step_bytes(container.weight());
      return container.string().find(item.string()) != std::string::npos;
    case Kind::kDict:
      return container.dict().find(item) != nullptr;
    case Kind::kSequence: {
      const Sequence& s = container.sequence();
      const bool iterator = s.kind == SequenceKind::kIterator;
      for (size_t i = iterator ? s.position : 0; i < s.items.size(); ++i) {
        step();
        if (iterator) s.position = i + 1;
        if (equal(s.items[i], item)) return true;
      }
      return false;
    }
    default:
      throw TemplateError(fmt::format("a value of type {} cannot contain anything", type_name(container)));
  }
}

Value Runtime::method(const Value& object, std::string_view name) {
  if (may_call_method(object, name)) return Value(static_cast<Object*>(make<BoundMethod>(object, std::string(name))));
  charge(64);
  return Value::undefined(fmt::format("the method '{}' of {} is not available in templates", name, type_name(object)));
}

Value Runtime::attribute(const Value& object, std::string_view name) {
  if (object.is_undefined()) throw TemplateError(object.undefined_message());
  if (object.is_object()) {
    if (auto found = object.object()->attribute(*this, name)) return *std::move(found);
  } else if (has_method(object, name)) {
    return method(object, name);
  } else if (object.is_dict()) {
    if (const Value* found = object.dict().find(name)) return *found;
  }
  charge(64);
  return Value::undefined(fmt::format("{} has no attribute '{}'", type_name(object), name));
}

Value Runtime::item(const Value& object, const Value& key) {
  if (object.is_undefined()) throw TemplateError(object.undefined_message());
  if (object.is_dict()) {
    const Dict& dict = object.dict();
    const bool hashable = !key.is_dict() && !key.is_sequence(SequenceKind::kList);
    if (const Value* found = key.is_string() ? dict.find(key.string()) : hashable ? dict.find(key) : nullptr)
      return *found;
  } else if (key.is_integer()) {
    int64_t index = key.integer();
    if (object.is_string() || (object.is_sequence() && !object.is_sequence(SequenceKind::kDictView) &&
                               !object.is_sequence(SequenceKind::kIterator))) {
      const int64_t size = length_of(object);
      if (index < 0) index += size;
      if (index >= 0 && index < size) {
        if (object.is_sequence()) return object.sequence().items[index];
        const std::string& s = object.string();
        step_bytes(s.size());
        size_t end = byte_offset(s, index);
        const size_t begin = end;
        next_char(s, end);
        return text(s.substr(begin, end - begin));
      }
    }
  }
  if (key.is_string()) {
    if (object.is_object()) {
      if (auto found = object.object()->attribute(*this, key.string())) return *std::move(found);
    } else if (has_method(object, key.string())) {
      return method(object, key.string());
    }
  }
  std::string name = key.weight() < 256 ? to_repr(key) : type_name(key);
  charge(64 + name.size());
  return Value::undefined(fmt::format("{} has no element {}", type_name(object), name));
}

Value Runtime::call(const Value& callee, Args& args) {
  if (callee.is_undefined()) throw TemplateError(callee.undefined_message());
  if (!callee.is_object() || !callee.object()->callable())
    throw TemplateError(fmt::format("a value of type {} cannot be called", type_name(callee)));
  const Depth depth(*this);
  return callee.object()->call(*this, args);
}

Value Runtime::apply_filter(std::string_view name, const Value& input, Args& args) {
  const FilterEntry* filter = find_filter(name);
  if (!filter) throw TemplateError(fmt::format("no filter named '{}'", name));
  step();
  return filter->apply(*this, input, args);
}

bool Runtime::apply_test(std::string_view name, const Value& input, Args& args) {
  const TestEntry* test = find_test(name);
  if (!test) throw TemplateError(fmt::format("no test named '{}'", name));
  step();
  return test->apply(*this, input, args);
}

Value BoundMethod::call(Runtime& runtime, Args& args) { return call_method(runtime, self_, name_, args); }

std::optional<Value> NamespaceObject::attribute(Runtime& runtime, std::string_view name) {
  runtime.step(static_cast<int64_t>(attributes_.size() / 16));
  for (const auto& [key, value] : attributes_)
    if (key == name) return value;
  return std::nullopt;
}

Value NamespaceObject::call(Runtime&, Args&) { throw TemplateError("a namespace cannot be called"); }

std::string NamespaceObject::describe() const {
  if (printing_) return "Namespace {...}";
  const Runtime::Depth depth(runtime_);
  printing_ = true;
  std::string out = "Namespace {";
  try {
    for (const auto& [key, value] : attributes_) {
      runtime_.charge(value.weight() + key.size());
      if (out.back() != '{') out += ", ";
      out += to_repr(Value::text(key)) + ": " + to_repr(value);
    }
  } catch (...) {
    printing_ = false;
    throw;
  }
  printing_ = false;
  return out + "}";
}

void NamespaceObject::set(std::string_view name, Value value) {
  runtime_.step(static_cast<int64_t>(attributes_.size() / 16));
  for (auto& [key, old] : attributes_) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  runtime_.charge(name.size() + sizeof(Value) + 32);
  attributes_.emplace_back(name, std::move(value));
}

const Value* ArgReader::next(std::string_view name) {
  const auto found = std::find_if(args_.keyword.begin(), args_.keyword.end(),
                                  [&](const auto& keyword) { return keyword.first == name; });
  if (next_ < args_.positional.size()) {
    if (found != args_.keyword.end()) fail(fmt::format("the argument '{}' is given twice", name));
    return &args_.positional[next_++];
  }
  if (found == args_.keyword.end()) return nullptr;
  ++taken_keywords_;
  return &found->second;
}

const Value& ArgReader::required(std::string_view name) {
  const Value* value = next(name);
  if (!value) fail(fmt::format("the argument '{}' is missing", name));
  return *value;
}

int64_t ArgReader::integer(std::string_view name, int64_t fallback) {
  const Value* value = next(name);
  if (!value) return fallback;
  if (!value->is_integer()) fail(fmt::format("the argument '{}' must be an integer, not {}", name, type_name(*value)));
  return value->integer();
}

bool ArgReader::boolean(std::string_view name, bool fallback) {
  const Value* value = next(name);
  return value ? truth(*value) : fallback;
}

std::string ArgReader::string(std::string_view name, std::string_view fallback) {
  const Value* value = next(name);
  if (!value) return std::string(fallback);
  if (!value->is_string()) fail(fmt::format("the argument '{}' must be a string, not {}", name, type_name(*value)));
  return value->string();
}

void ArgReader::done() const {
  if (next_ < args_.positional.size())
    fail(fmt::format("takes {} arguments, {} given", next_, args_.positional.size()));
  if (taken_keywords_ < args_.keyword.size()) fail("an unknown argument, such as '" + args_.keyword.back().first + "'");
}

}  // namespace tinyserve::jinja
