// Filters over lists, dicts and what else can be walked.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "text/jinja/operators.h"
#include "text/jinja/registry.h"
#include "text/jinja/unicode.h"

namespace tinyserve::jinja {
namespace {

/// The part of an item that map(attribute=...), sort, selectattr... look at: "function.name", or an index.
class Getter {
 public:
  Getter(const Value* attribute, const Value* fallback) : fallback_(fallback) {
    if (!attribute || attribute->is_none()) return;
    if (!attribute->is_string()) {
      parts_.push_back(*attribute);
      return;
    }
    const std::string& s = attribute->string();
    for (size_t begin = 0; begin <= s.size();) {
      const size_t end = std::min(s.find('.', begin), s.size());
      const std::string part = s.substr(begin, end - begin);
      const bool digits = !part.empty() && part.size() < 18 &&
                          std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
      parts_.push_back(digits ? Value(static_cast<int64_t>(std::stoll(part))) : Value::text(part));
      begin = end + 1;
    }
  }

  Value get(Runtime& runtime, Value item) const {
    for (const Value& part : parts_) {
      item = runtime.item(item, part);
      if (item.is_undefined() && fallback_ && !fallback_->is_none()) item = *fallback_;
    }
    return item;
  }

 private:
  std::vector<Value> parts_;
  const Value* fallback_;
};

// The keys of sort, unique, min, max ignore the case of strings unless told otherwise.
Value fold(Runtime& runtime, const Value& v, bool case_sensitive) {
  if (case_sensitive || !v.is_string()) return v;
  runtime.step_bytes(4 * v.string().size());
  return runtime.text(to_lower(v.string()));
}

Value length(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'length'", args).done();
  return Value(runtime.length_of(v));
}

Value first(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'first'", args).done();
  if (v.is_sequence()) {
    const Sequence& s = v.sequence();
    const size_t at = s.kind == SequenceKind::kIterator ? s.position : 0;
    if (at >= s.items.size()) return Value::undefined("the first item of an empty sequence");
    if (s.kind == SequenceKind::kIterator) ++s.position;
    return s.items[at];
  }
  const std::vector<Value> items = runtime.items_of(v);
  return items.empty() ? Value::undefined("the first item of an empty sequence") : items.front();
}

Value last(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'last'", args).done();
  if (v.is_sequence(SequenceKind::kIterator))
    throw TemplateError("filter 'last': make the iterator a list with |list first");
  const std::vector<Value> items = runtime.items_of(v);
  return items.empty() ? Value::undefined("the last item of an empty sequence") : items.back();
}

Value join(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'join'", args);
  const Value* separator = reader.next("d");
  const Getter getter(reader.next("attribute"), nullptr);
  reader.done();
  const std::string d = separator ? runtime.text_of(*separator) : "";
  std::string out;
  bool first_item = true;
  for (const Value& item : runtime.items_of(v)) {
    const std::string text = runtime.text_of(getter.get(runtime, item));
    const size_t added = text.size() + (first_item ? 0 : d.size());
    runtime.charge(added);
    if (out.size() + added > runtime.limits().max_output_bytes) runtime.charge_text(out.size() + added);
    if (!first_item) out += d;
    first_item = false;
    out += text;
  }
  return runtime.text(std::move(out));
}

Value default_value(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'default'", args);
  const Value* fallback = reader.next("default_value");
  const bool boolean = reader.boolean("boolean", false);
  reader.done();
  if (!v.is_undefined() && !(boolean && !truth(v))) return v;
  return fallback ? *fallback : runtime.text("");
}

Value list(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'list'", args).done();
  return runtime.sequence(runtime.items_of(v));
}

Value reverse(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'reverse'", args).done();
  std::vector<Value> items = runtime.items_of(v);
  std::reverse(items.begin(), items.end());
  if (!v.is_string()) return runtime.iterator(std::move(items));
  std::string out;
  for (const Value& c : items) out += c.string();
  return runtime.text(std::move(out));
}

// Sorts by keys computed once; comparisons that throw are safe inside a merge sort over indices.
std::vector<size_t> order_by(Runtime& runtime, const std::vector<Value>& keys, bool descending) {
  std::vector<size_t> order(keys.size()), other(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (size_t width = 1; width < order.size(); width *= 2) {
    for (size_t begin = 0; begin < order.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, order.size()), end = std::min(begin + 2 * width, order.size());
      size_t a = begin, b = middle, out = begin;
      while (a < middle && b < end) {
        runtime.step();
        const int c = runtime.compare(keys[order[b]], keys[order[a]]);
        other[out++] = (descending ? c > 0 : c < 0) ? order[b++] : order[a++];
      }
      while (a < middle) other[out++] = order[a++];
      while (b < end) other[out++] = order[b++];
    }
    order.swap(other);
  }
  return order;
}

Value sorted(Runtime& runtime, const std::vector<Value>& items, const std::vector<Value>& keys, bool descending) {
  std::vector<Value> out;
  for (const size_t i : order_by(runtime, keys, descending)) out.push_back(items[i]);
  return runtime.sequence(std::move(out));
}

Value sort(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'sort'", args);
  const bool descending = reader.boolean("reverse", false), case_sensitive = reader.boolean("case_sensitive", false);
  const Value* attribute = reader.next("attribute");
  reader.done();
  // "a,b" sorts by a, then by b.
  std::vector<Getter> getters;
  std::vector<Value> names;
  if (attribute && attribute->is_string()) {
    Args comma;
    comma.positional.push_back(Value::text(","));
    names = runtime.items_of(call_method(runtime, *attribute, "split", comma));
    for (const Value& name : names) getters.emplace_back(&name, nullptr);
  } else {
    getters.emplace_back(attribute, nullptr);
  }
  const std::vector<Value> items = runtime.items_of(v);
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> parts;
    for (const Getter& getter : getters) parts.push_back(fold(runtime, getter.get(runtime, item), case_sensitive));
    keys.push_back(runtime.sequence(std::move(parts)));
  }
  return sorted(runtime, items, keys, descending);
}

Value dictsort(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'dictsort'", args);
  const bool case_sensitive = reader.boolean("case_sensitive", false);
  const std::string by = reader.string("by", "key");
  const bool descending = reader.boolean("reverse", false);
  reader.done();
  if (by != "key" && by != "value") reader.fail("sorts by \"key\" or \"value\"");
  if (v.is_undefined()) throw TemplateError(v.undefined_message());
  if (!v.is_dict()) reader.fail(fmt::format("takes a dict, not {}", type_name(v)));
  std::vector<Value> items, keys;
  for (const auto& [key, value] : v.dict().entries) {
    items.push_back(runtime.tuple({key, value}));
    keys.push_back(fold(runtime, by == "key" ? key : value, case_sensitive));
  }
  return sorted(runtime, items, keys, descending);
}

Value items(Runtime& runtime, const Value& v, Args& args) {
  ArgReader("filter 'items'", args).done();
  std::vector<Value> out;
  if (v.is_undefined()) return runtime.iterator({});
  if (!v.is_dict()) throw TemplateError(fmt::format("filter 'items': takes a dict, not {}", type_name(v)));
  for (const auto& [key, value] : v.dict().entries) out.push_back(runtime.tuple({key, value}));
  return runtime.iterator(std::move(out));
}

Value unique(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'unique'", args);
  const bool case_sensitive = reader.boolean("case_sensitive", false);
  const Getter getter(reader.next("attribute"), nullptr);
  reader.done();
  Dict seen;
  std::vector<Value> out;
  for (Value& item : runtime.items_of(v)) {
    const Value key = fold(runtime, getter.get(runtime, item), case_sensitive);
    runtime.charge(2 * sizeof(Value) + 32);
    if (seen.find(key)) continue;
    seen.set(key, Value::none());
    out.push_back(std::move(item));
  }
  return runtime.iterator(std::move(out));
}

Value extreme(Runtime& runtime, const Value& v, Args& args, bool want_max) {
  ArgReader reader(want_max ? "filter 'max'" : "filter 'min'", args);
  const bool case_sensitive = reader.boolean("case_sensitive", false);
  const Getter getter(reader.next("attribute"), nullptr);
  reader.done();
  const std::vector<Value> items = runtime.items_of(v);
  if (items.empty()) return Value::undefined("the sequence is empty");
  size_t best = 0;
  Value best_key = fold(runtime, getter.get(runtime, items[0]), case_sensitive);
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = fold(runtime, getter.get(runtime, items[i]), case_sensitive);
    const int c = runtime.compare(key, best_key);
    if (want_max ? c <= 0 : c >= 0) continue;
    best = i;
    best_key = std::move(key);
  }
  return items[best];
}

Value sum(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'sum'", args);
  const Getter getter(reader.next("attribute"), nullptr);
  const Value* start = reader.next("start");
  reader.done();
  Value total = start ? *start : Value(0);
  if (total.is_string()) reader.fail("cannot sum strings; use join");
  for (const Value& item : runtime.items_of(v)) {
    runtime.step();
    total = binary(runtime, Operator::kAdd, total, getter.get(runtime, item));
  }
  return total;
}

Value map(Runtime& runtime, const Value& v, Args& args) {
  std::vector<Value> out;
  if (args.positional.empty()) {
    ArgReader reader("filter 'map'", args);
    // By keyword only: what comes first without a name is the name of a filter.
    const Value* attribute = reader.next("attribute");
    const Value* fallback = reader.next("default");
    reader.done();
    if (!attribute) reader.fail("needs the name of a filter, or attribute=");
    const Getter getter(attribute, fallback);
    for (const Value& item : runtime.items_of(v)) {
      runtime.step();
      out.push_back(getter.get(runtime, item));
    }
    return runtime.iterator(std::move(out));
  }
  const Value name = args.positional[0];
  if (!name.is_string()) throw TemplateError("filter 'map': the first argument must be the name of a filter");
  args.positional.erase(args.positional.begin());
  for (const Value& item : runtime.items_of(v)) {
    Args call = args;
    const Runtime::Depth depth(runtime);
    out.push_back(runtime.apply_filter(name.string(), item, call));
  }
  return runtime.iterator(std::move(out));
}

// select, reject, selectattr, rejectattr.
Value select(Runtime& runtime, const Value& v, Args& args, bool keep, bool by_attribute) {
  std::vector<Value> out;
  if (!truth(v)) return runtime.iterator({});
  Value attribute;
  size_t used = 0;
  if (by_attribute) {
    if (args.positional.empty())
      throw TemplateError("filters 'selectattr' and 'rejectattr' need the name of an attribute");
    attribute = args.positional[used++];
  }
  const Getter getter(by_attribute ? &attribute : nullptr, nullptr);
  const bool has_test = used < args.positional.size();
  const Value test = has_test ? args.positional[used++] : Value();
  if (has_test && !test.is_string()) throw TemplateError("the name of a test must be a string");
  args.positional.erase(args.positional.begin(), args.positional.begin() + static_cast<ptrdiff_t>(used));
  for (Value& item : runtime.items_of(v)) {
    runtime.step();
    const Value looked_at = getter.get(runtime, item);
    bool passes = false;
    if (has_test) {
      Args call = args;
      passes = runtime.apply_test(test.string(), looked_at, call);
    } else {
      passes = truth(looked_at);
    }
    if (passes == keep) out.push_back(std::move(item));
  }
  return runtime.iterator(std::move(out));
}

Value batch(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'batch'", args);
  const Value& count = reader.required("linecount");
  const Value* fill = reader.next("fill_with");
  reader.done();
  if (!count.is_integer() || count.integer() < 1) reader.fail("the size must be a positive integer");
  const size_t n = static_cast<size_t>(count.integer());
  std::vector<Value> all = runtime.items_of(v), rows;
  for (size_t i = 0; i < all.size(); i += n) {
    std::vector<Value> row(all.begin() + static_cast<ptrdiff_t>(i),
                           all.begin() + static_cast<ptrdiff_t>(n < all.size() - i ? i + n : all.size()));
    if (fill && !fill->is_none() && row.size() < n) {
      if (n > runtime.limits().max_memory_bytes / sizeof(Value)) runtime.charge(runtime.limits().max_memory_bytes + 1);
      runtime.charge(n * sizeof(Value));
      row.resize(n, *fill);
    }
    rows.push_back(runtime.sequence(std::move(row)));
  }
  return runtime.iterator(std::move(rows));
}

Value slices(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'slice'", args);
  const Value& count = reader.required("slices");
  const Value* fill = reader.next("fill_with");
  reader.done();
  if (!count.is_integer() || count.integer() < 1 || count.integer() > runtime.limits().max_range)
    reader.fail("the number of slices must be a positive integer");
  const std::vector<Value> all = runtime.items_of(v);
  const size_t n = static_cast<size_t>(count.integer()), size = all.size() / n, longer = all.size() % n;
  std::vector<Value> rows;
  for (size_t i = 0, at = 0; i < n; ++i) {
    const size_t take = size + (i < longer);
    std::vector<Value> row(all.begin() + static_cast<ptrdiff_t>(at), all.begin() + static_cast<ptrdiff_t>(at + take));
    if (fill && !fill->is_none() && i >= longer) row.push_back(*fill);
    at += take;
    rows.push_back(runtime.sequence(std::move(row)));
  }
  return runtime.iterator(std::move(rows));
}

Value attr(Runtime& runtime, const Value& v, Args& args) {
  ArgReader reader("filter 'attr'", args);
  const std::string name = reader.string("name", "");
  reader.done();
  // Unlike v.name this never looks into a dict.
  if (v.is_dict() && !has_method(v, name)) return Value::undefined(fmt::format("dict has no attribute '{}'", name));
  return runtime.attribute(v, name);
}

constexpr FilterEntry kFilters[] = {
    {"length", length},
    {"count", length},
    {"first", first},
    {"last", last},
    {"join", join},
    {"default", default_value},
    {"d", default_value},
    {"list", list},
    {"reverse", reverse},
    {"sort", sort},
    {"dictsort", dictsort},
    {"items", items},
    {"unique", unique},
    {"min", [](Runtime& r, const Value& v, Args& a) { return extreme(r, v, a, false); }},
    {"max", [](Runtime& r, const Value& v, Args& a) { return extreme(r, v, a, true); }},
    {"sum", sum},
    {"map", map},
    {"select", [](Runtime& r, const Value& v, Args& a) { return select(r, v, a, true, false); }},
    {"reject", [](Runtime& r, const Value& v, Args& a) { return select(r, v, a, false, false); }},
    {"selectattr", [](Runtime& r, const Value& v, Args& a) { return select(r, v, a, true, true); }},
    {"rejectattr", [](Runtime& r, const Value& v, Args& a) { return select(r, v, a, false, true); }},
    {"batch", batch},
    {"slice", slices},
    {"attr", attr},
};

}  // namespace

std::span<const FilterEntry> sequence_filters() { return kFilters; }

}  // namespace tinyserve::jinja
