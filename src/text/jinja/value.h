#pragma once
// Values of the template language. They follow Python, since templates are written against jinja2: integers (64 bit
// here, overflow is an error), floats, UTF-8 strings indexed by code point, lists, tuples, dicts that keep insertion
// order, and objects (namespaces, macros, functions, loop). Strings, sequences and dicts are shared and immutable, so
// copying a Value is cheap; jinja2's ImmutableSandboxedEnvironment forbids changing them as well.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace tinyserve::jinja {

class Value;
class Runtime;
struct Dict;

/// Positional and keyword arguments of a call.
struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

/// Why a value is undefined: printing it gives nothing, most other uses give an error with this text.
struct UndefinedInfo {
  std::string message;
};

struct Text {
  std::string bytes;       ///< UTF-8
  bool safe = false;       ///< marked by |safe or |escape: escaping it again changes nothing
  int64_t num_chars = -1;  ///< code points, counted when the text is made
};

/// What Python type a sequence stands for; they differ in printing, indexing and reuse.
enum class SequenceKind : uint8_t {
  kList,
  kTuple,
  kRange,
  kDictView,  ///< items(), keys(), values() of a dict: has a length, no index
  kIterator,  ///< what map, select, reverse... give: no length, no index, can be walked once
};

struct Sequence {
  SequenceKind kind = SequenceKind::kList;
  std::vector<Value> items;
  int depth = 1;                ///< 1 + the deepest item; bounds every recursion over values
  size_t weight = 0;            ///< about the bytes that printing it makes; bounds every walk over values
  std::string label;            ///< how a range or a view prints its type
  mutable size_t position = 0;  ///< kIterator: items already taken
};

/// Anything with behaviour. Objects live in the Runtime's arena until the rendering ends, so that cycles through
/// namespaces cost nothing; values point to them without owning them.
class Object {
 public:
  virtual ~Object() = default;
  /// The attribute, or nothing when the object has none of this name.
  virtual std::optional<Value> attribute(Runtime& runtime, std::string_view name);
  virtual bool callable() const { return true; }
  /// Python prints the others with their address, which no template means: an error.
  virtual bool printable() const { return false; }
  virtual Value call(Runtime& runtime, Args& args) = 0;
  virtual std::string describe() const = 0;  ///< "macro 'f'", for messages and for printing
};

enum class Kind : uint8_t { kUndefined, kNone, kBool, kInt, kFloat, kString, kSequence, kDict, kObject };

class Value {
 public:
  using UndefinedPtr = std::shared_ptr<const UndefinedInfo>;
  using TextPtr = std::shared_ptr<const Text>;
  using SequencePtr = std::shared_ptr<const Sequence>;
  using DictPtr = std::shared_ptr<const Dict>;

  Value() : data_(UndefinedPtr()) {}
  Value(bool b) : data_(b) {}
  Value(int64_t i) : data_(i) {}
  Value(int i) : data_(int64_t{i}) {}
  Value(double d) : data_(d) {}
  Value(TextPtr text) : data_(std::move(text)) {}
  Value(SequencePtr sequence) : data_(std::move(sequence)) {}
  Value(DictPtr dict) : data_(std::move(dict)) {}
  Value(Object* object) : data_(object) {}
  template <class T>
  Value(T*) = delete;  // a char pointer would silently become a bool

  static Value none();
  static Value undefined(std::string message);
  static Value text(std::string bytes, bool safe = false);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_bool() const { return kind() == Kind::kBool; }
  bool is_integer() const { return kind() == Kind::kInt || kind() == Kind::kBool; }  ///< as in Python, bools count
  bool is_float() const { return kind() == Kind::kFloat; }
  bool is_number() const { return is_integer() || is_float(); }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_sequence() const { return kind() == Kind::kSequence; }
  bool is_sequence(SequenceKind k) const { return is_sequence() && sequence().kind == k; }
  bool is_dict() const { return kind() == Kind::kDict; }
  bool is_object() const { return kind() == Kind::kObject; }

  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const { return is_bool() ? int64_t{boolean()} : std::get<int64_t>(data_); }
  double number() const { return is_float() ? std::get<double>(data_) : static_cast<double>(integer()); }
  const std::string& string() const { return std::get<TextPtr>(data_)->bytes; }
  const Text& text() const { return *std::get<TextPtr>(data_); }
  bool is_safe() const { return is_string() && text().safe; }
  const Sequence& sequence() const { return *std::get<SequencePtr>(data_); }
  const Dict& dict() const { return *std::get<DictPtr>(data_); }
  Object* object() const { return std::get<Object*>(data_); }

  /// "'x' is undefined", for messages.
  std::string undefined_message() const;
  /// Depth of nested containers: 0 for everything else.
  int depth() const;
  /// About how many bytes a walk over the value handles; shared parts count each time they are reached.
  size_t weight() const;

 private:
  struct NoneType {};
  std::variant<UndefinedPtr, NoneType, bool, int64_t, double, TextPtr, SequencePtr, DictPtr, Object*> data_;
};

/// Insertion-ordered map. Keys are hashable values (strings, numbers, bools, None, tuples of such).
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  int depth = 1;
  size_t weight = 0;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  /// Sets or replaces. Throws TemplateError when the key cannot be hashed.
  void set(const Value& key, Value value);

 private:
  std::unordered_multimap<size_t, size_t> index_;  ///< hash -> entry, kept once there are more than a few entries
};

/// The name of the Python type, for messages: "str", "int", "dict"...
std::string type_name(const Value& value);
bool truth(const Value& value);
/// == of Python: numbers compare by value across types, containers item by item.
bool equal(const Value& a, const Value& b);
/// <0, 0, >0. Throws TemplateError when Python could not order the two.
int compare(const Value& a, const Value& b);
/// hash(): equal values hash alike. Throws TemplateError for lists and dicts.
size_t hash_of(const Value& value);

/// str(): what {{ value }} prints.
std::string to_text(const Value& value);
/// repr(): how the value looks inside a printed list.
std::string to_repr(const Value& value);
std::string float_repr(double d);

}  // namespace tinyserve::jinja
