#pragma once
// The "normalizer" of a tokenizer.json: what is done to a text before it is cut.

#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "text/regex.h"

namespace tinyserve {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// Changes `text` (valid UTF-8, and so afterwards). Sets `at_start` to false when the first character that is left
  /// was not the first before; Metaspace with prepend_scheme "first" asks for it.
  virtual void apply(std::string& text, bool& at_start, Regex::Scratch& scratch) const = 0;
};

/// Throws InputError, naming `where`, for a type that is unknown or not supported and for wrong fields.
std::unique_ptr<Normalizer> make_normalizer(const Json& json, std::string_view where);

/// {"String": ..} or {"Regex": ..} of Replace and Split: finds its matches, leftmost first.
class TextPattern {
 public:
  TextPattern(const Json& pattern, std::string_view where);
  template <typename Visit>
  void for_each_match(std::string_view text, Regex::Scratch& scratch, Visit&& visit) const {
    if (regex_) return regex_->for_each_match(text, scratch, visit);
    for (size_t at = text.find(literal_); at != std::string_view::npos; at = text.find(literal_, at + literal_.size()))
      visit(at, at + literal_.size());
  }

 private:
  std::string literal_;  // not empty unless regex_ is set
  std::unique_ptr<Regex> regex_;
};

}  // namespace tinyserve
