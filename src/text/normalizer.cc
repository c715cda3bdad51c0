#include "text/normalizer.h"

#include <vector>

#include "base/base64.h"
#include "text/byte_level.h"
#include "text/charsmap.h"
#include "text/json_fields.h"
#include "text/unicode.h"
#include "text/unicode_normalize.h"

namespace tinyserve {
namespace {

// Leaves the characters that keep(c) returns a character for (0xFFFFFFFF: none), changed to that.
constexpr char32_t kDrop = 0xFFFFFFFF;
template <typename Map>
void map_chars(std::string& text, bool& at_start, Map&& map) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += unicode::char_length(text[i])) {
    const char32_t c = map(unicode::front_char(std::string_view(text).substr(i)));
    if (c != kDrop) unicode::append_char(out, c);
    else if (i == 0) at_start = false;
  }
  text = std::move(out);
}

class Sequence : public Normalizer {
 public:
  Sequence(const Json& json, std::string_view where) {
    const Json& parts = fields::array(json, "normalizers", where);
    for (size_t i = 0; i < parts.size(); ++i)
      parts_.push_back(make_normalizer(parts[i], fmt::format("{}.normalizers[{}]", where, i)));
  }
  void apply(std::string& text, bool& at_start, Regex::Scratch& scratch) const override {
    for (const auto& part : parts_) part->apply(text, at_start, scratch);
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

class Form : public Normalizer {
 public:
  explicit Form(unicode::NormalForm form) : form_(form) {}
  void apply(std::string& text, bool&, Regex::Scratch&) const override { text = unicode::normalize(text, form_); }

 private:
  unicode::NormalForm form_;
};

class Lowercase : public Normalizer {
 public:
  void apply(std::string& text, bool&, Regex::Scratch&) const override { text = unicode::lower_case(text); }
};

class Strip : public Normalizer {
 public:
  Strip(const Json& json, std::string_view where)
      : left_(fields::boolean(json, "strip_left", where)), right_(fields::boolean(json, "strip_right", where)) {}
  void apply(std::string& text, bool& at_start, Regex::Scratch&) const override {
    const std::string_view view = text;
    size_t begin = 0, end = view.size();
    while (left_ && begin < end && unicode::is_whitespace(unicode::front_char(view.substr(begin))))
      begin += unicode::char_length(view[begin]);
    while (right_ && end > begin) {
      const size_t last = unicode::previous_char(view, end);
      if (!unicode::is_whitespace(unicode::front_char(view.substr(last)))) break;
      end = last;
    }
    if (begin > 0) at_start = false;
    text = text.substr(begin, end - begin);
  }

 private:
  bool left_, right_;
};

class StripAccents : public Normalizer {
 public:
  void apply(std::string& text, bool& at_start, Regex::Scratch&) const override {
    map_chars(text, at_start, [](char32_t c) { return unicode::is_combining_mark(c) ? kDrop : c; });
  }
};

// The clean-up of Google's NMT models: control characters go, odd spaces become spaces.
class Nmt : public Normalizer {
 public:
  void apply(std::string& text, bool& at_start, Regex::Scratch&) const override {
    map_chars(text, at_start, [](char32_t c) -> char32_t {
      if ((c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F)
        return kDrop;
      const bool space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
                         c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      return space ? U' ' : c;
    });
  }
};

class Replace : public Normalizer {
 public:
  Replace(const Json& json, std::string_view where)
      : pattern_(fields::require(json, "pattern", where), fmt::format("{}.pattern", where)),
        content_(fields::text(json, "content", where)) {}
  void apply(std::string& text, bool& at_start, Regex::Scratch& scratch) const override {
    const std::string_view view = text;
    std::string out;
    size_t done = 0;
    bool any = false;
    pattern_.for_each_match(view, scratch, [&](size_t begin, size_t end) {
      if (!any) out.reserve(text.size() + text.size() / 8);
      any = true;
      // What replaces several characters counts as standing where the last of them stood.
      if (begin == 0 && end > 0 && (content_.empty() || unicode::char_length(view[0]) < end)) at_start = false;
      out.append(view, done, begin - done);
      out += content_;
      done = end;
    });
    if (!any) return;
    out.append(view, done);
    text = std::move(out);
  }

 private:
  TextPattern pattern_;
  std::string content_;
};

class Prepend : public Normalizer {
 public:
  Prepend(const Json& json, std::string_view where) : prefix_(fields::text(json, "prepend", where)) {}
  void apply(std::string& text, bool&, Regex::Scratch&) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class Precompiled : public Normalizer {
 public:
  Precompiled(const Json& json, std::string_view where)
      : map_(decode_base64(fields::text(json, "precompiled_charsmap", where), fmt::format("{}.precompiled_charsmap", where)),
             fmt::format("{}.precompiled_charsmap", where)) {}
  void apply(std::string& text, bool&, Regex::Scratch&) const override { text = map_.apply(text); }

 private:
  Charsmap map_;
};

class ByteLevel : public Normalizer {
 public:
  void apply(std::string& text, bool&, Regex::Scratch&) const override { text = to_byte_level(text); }
};

}  // namespace

TextPattern::TextPattern(const Json& pattern, std::string_view where) {
  if (pattern.is_object() && pattern.size() == 1 && pattern.begin()->is_string()) {
    const auto& text = pattern.begin()->get_ref<const std::string&>();
    if (pattern.begin().key() == "Regex") {
      regex_ = std::make_unique<Regex>(text, where);
      return;
    }
    if (pattern.begin().key() == "String") {
      literal_ = text;
      if (text.empty()) regex_ = std::make_unique<Regex>("", where);  // matches before every character
      return;
    }
  }
  throw InputError(fmt::format("{} is neither {{\"String\": ...}} nor {{\"Regex\": ...}}", where));
}

std::unique_ptr<Normalizer> make_normalizer(const Json& json, std::string_view where) {
  const std::string& type = fields::text(json, "type", where);
  if (type == "Sequence") return std::make_unique<Sequence>(json, where);
  if (type == "NFC") return std::make_unique<Form>(unicode::NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<Form>(unicode::NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<Form>(unicode::NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<Form>(unicode::NormalForm::kNfkd);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Strip") return std::make_unique<Strip>(json, where);
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "Nmt") return std::make_unique<Nmt>();
  if (type == "Replace") return std::make_unique<Replace>(json, where);
  if (type == "Prepend") return std::make_unique<Prepend>(json, where);
  if (type == "Precompiled") return std::make_unique<Precompiled>(json, where);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  throw InputError(fmt::format("{} is of type {:?}, which is not supported", where, type));
}

}  // namespace tinyserve
