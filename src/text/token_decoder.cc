#include "text/token_decoder.h"

#include <algorithm>
#include <optional>

#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace tinyserve {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // ▁
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

std::string join(const std::vector<std::string>& tokens) {
  std::string out;
  for (const auto& token : tokens) out += token;
  return out;
}

// A step that changes each token by itself, the same way at every place.
class EachToken : public DecoderStep {
 public:
  void apply(std::vector<std::string>& tokens, Regex::Scratch& scratch) const final {
    for (auto& token : tokens) change(token, scratch);
  }
  void apply_alone(std::string& token, bool, bool&, Regex::Scratch& scratch) const override { change(token, scratch); }

 protected:
  virtual void change(std::string& token, Regex::Scratch& scratch) const = 0;
};

class ByteLevel : public DecoderStep {
 public:
  void apply(std::vector<std::string>& tokens, Regex::Scratch&) const override {
    std::string bytes;
    for (const auto& token : tokens) {
      const auto decoded = from_byte_level(token);
      bytes += decoded ? *decoded : token;
    }
    std::string storage;
    tokens.assign(1, std::string(unicode::replace_invalid_utf8(bytes, storage)));
  }
  void apply_alone(std::string& token, bool, bool& fused, Regex::Scratch&) const override {
    if (!unicode::is_valid_utf8(token)) return;
    if (auto decoded = from_byte_level(token)) token = std::move(*decoded);
    fused = true;
  }
};

class ByteFallback : public DecoderStep {
 public:
  // Of a run of byte tokens that is not well-formed as a whole: `keep_characters`, as SentencePiece does, leaves the
  // characters in it; else, as the `tokenizers` package does, every byte becomes U+FFFD.
  explicit ByteFallback(bool keep_characters) : keep_characters_(keep_characters) {}
  void apply(std::vector<std::string>& tokens, Regex::Scratch&) const override {
    std::vector<std::string> out;
    std::string run;  // bytes of consecutive byte tokens
    const auto flush = [&] {
      if (run.empty()) return;
      if (keep_characters_) out.push_back(unicode::replace_invalid_bytes(run));
      else if (unicode::is_valid_utf8(run)) out.push_back(run);
      else out.insert(out.end(), run.size(), std::string(kReplacement));
      run.clear();
    };
    for (auto& token : tokens) {
      if (const auto byte = byte_of(token)) {
        run += *byte;
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(out);
  }
  void apply_alone(std::string& token, bool, bool&, Regex::Scratch&) const override {
    if (const auto byte = byte_of(token)) token = *byte;
  }

 private:
  static std::optional<char> byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    const auto digit = [](char c) {
      return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
    };
    const int low = digit(token[4]), high = token[3] == '+' ? 0 : digit(token[3]);  // "+F" is a number to the package
    if (low < 0 || high < 0) return std::nullopt;
    return static_cast<char>(high * 16 + low);
  }
  bool keep_characters_;
};

class Fuse : public DecoderStep {
 public:
  void apply(std::vector<std::string>& tokens, Regex::Scratch&) const override { tokens.assign(1, join(tokens)); }
  void apply_alone(std::string&, bool, bool& fused, Regex::Scratch&) const override { fused = true; }
};

class Strip : public DecoderStep {
 public:
  Strip(const Json& json, std::string_view where)
      : content_(fields::text(json, "content", where)),
        start_(fields::whole(json, "start", where, 0, 1 << 30)),
        stop_(fields::whole(json, "stop", where, 0, 1 << 30)) {
    if (unicode::count_chars(content_) != 1) fields::fail(where, "content", "is not one character");
  }
  void apply(std::vector<std::string>& tokens, Regex::Scratch&) const override {
    for (auto& token : tokens) strip(token, start_, stop_);
  }
  void apply_alone(std::string& token, bool first, bool& fused, Regex::Scratch&) const override {
    strip(token, fused && !first ? 0 : start_, fused ? 0 : stop_);
  }

 private:
  void strip(std::string& token, int64_t start, int64_t stop) const {
    std::string_view view = token;
    for (int64_t i = 0; i < start && view.starts_with(content_); ++i) view.remove_prefix(content_.size());
    for (int64_t i = 0; i < stop && view.ends_with(content_); ++i) view.remove_suffix(content_.size());
    if (view.size() < token.size()) token = std::string(view);
  }
  std::string content_;
  int64_t start_, stop_;
};

// SentencePiece's: the space mark at the front of the first token, not a space that comes of a byte token.
class StripSpaceMark : public DecoderStep {
 public:
  void apply(std::vector<std::string>& tokens, Regex::Scratch&) const override {
    if (!tokens.empty()) strip(tokens[0]);
  }
  void apply_alone(std::string& token, bool first, bool&, Regex::Scratch&) const override {
    if (first) strip(token);
  }

 private:
  static void strip(std::string& token) {
    if (token.starts_with(kSpaceMark)) token.erase(0, kSpaceMark.size());
  }
};

class Replace : public EachToken {
 public:
  Replace(const Json& json, std::string_view where)
      : pattern_(fields::require(json, "pattern", where), fmt::format("{}.pattern", where)),
        content_(fields::text(json, "content", where)) {}

 protected:
  void change(std::string& token, Regex::Scratch& scratch) const override {
    if (!unicode::is_valid_utf8(token)) return;  // a lone byte of a character, seen by apply_alone()
    std::string out;
    size_t done = 0;
    bool any = false;
    pattern_.for_each_match(token, scratch, [&](size_t begin, size_t end) {
      any = true;
      out.append(token, done, begin - done);
      out += content_;
      done = end;
    });
    if (!any) return;
    out.append(token, done);
    token = std::move(out);
  }

 private:
  TextPattern pattern_;
  std::string content_;
};

class Metaspace : public DecoderStep {
 public:
  Metaspace(const Json& json, std::string_view where) : mark_(fields::text(json, "replacement", where)) {
    if (unicode::count_chars(mark_) != 1) fields::fail(where, "replacement", "is not one character");
    const std::string scheme = fields::text_or(json, "prepend_scheme", where, "always");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      fields::fail(where, "prepend_scheme", fmt::format("is {:?}, which is not supported", scheme));
    prepends_ = scheme != "never" && fields::boolean(json, "add_prefix_space", where, true);
  }
  void apply(std::vector<std::string>& tokens, Regex::Scratch&) const override {
    for (size_t i = 0; i < tokens.size(); ++i) change(tokens[i], i == 0);
  }
  void apply_alone(std::string& token, bool first, bool&, Regex::Scratch&) const override { change(token, first); }

 private:
  void change(std::string& token, bool first) const {
    std::string out;
    size_t done = 0;
    for (size_t at = token.find(mark_); at != token.npos; at = token.find(mark_, done)) {
      out.append(token, done, at - done);
      if (!first || !prepends_) out += ' ';
      done = at + mark_.size();
    }
    if (done == 0) return;
    out.append(token, done);
    token = std::move(out);
  }
  std::string mark_;
  bool prepends_ = true;
};

}  // namespace

TokenDecoder TokenDecoder::sentencepiece(bool strip_space) {
  TokenDecoder out;
  out.joins_with_space_ = false;
  if (strip_space) out.steps_.push_back(std::make_unique<StripSpaceMark>());
  out.steps_.push_back(std::make_unique<Replace>(
      Json{{"pattern", {{"String", kSpaceMark}}}, {"content", " "}}, "SentencePiece"));
  out.steps_.push_back(std::make_unique<ByteFallback>(true));
  return out;
}

TokenDecoder::TokenDecoder(const Json& json, std::string_view where) : joins_with_space_(false) { add(json, where); }

void TokenDecoder::add(const Json& json, std::string_view where) {
  const auto& type = fields::text(json, "type", where);
  if (type == "Sequence") {
    const Json& parts = fields::array(json, "decoders", where);
    for (size_t i = 0; i < parts.size(); ++i) add(parts[i], fmt::format("{}.decoders[{}]", where, i));
  } else if (type == "ByteLevel") {
    steps_.push_back(std::make_unique<ByteLevel>());
  } else if (type == "ByteFallback") {
    steps_.push_back(std::make_unique<ByteFallback>(false));
  } else if (type == "Fuse") {
    steps_.push_back(std::make_unique<Fuse>());
  } else if (type == "Strip") {
    steps_.push_back(std::make_unique<Strip>(json, where));
  } else if (type == "Replace") {
    steps_.push_back(std::make_unique<Replace>(json, where));
  } else if (type == "Metaspace") {
    steps_.push_back(std::make_unique<Metaspace>(json, where));
  } else {
    throw InputError(fmt::format("{} is of type {:?}, which is not supported", where, type));
  }
}

std::string TokenDecoder::decode(std::vector<std::string> tokens) const {
  if (joins_with_space_) {
    std::string out;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) out += ' ';
      out += tokens[i];
    }
    return out;
  }
  Regex::Scratch scratch;
  size_t bytes = 0;
  for (const auto& token : tokens) bytes += token.size();
  scratch.start(bytes);
  for (const auto& step : steps_) step->apply(tokens, scratch);
  return join(tokens);
}

std::string TokenDecoder::bytes(std::string_view token, bool first) const {
  std::string out;
  if (joins_with_space_ && !first) out += ' ';
  out += token;
  bool fused = false;
  if (steps_.empty()) return out;
  Regex::Scratch scratch;
  for (const auto& step : steps_) step->apply_alone(out, first, fused, scratch);
  return out;
}

}  // namespace tinyserve
