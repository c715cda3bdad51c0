#include "text/pre_tokenizer.h"

#include <algorithm>
#include <optional>

#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace tinyserve {
namespace {

using Piece = PreTokenized::Piece;

// What becomes of the matches of a splitter.
enum class Behaviour { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behaviour parse_behaviour(const Json& json, std::string_view where, std::optional<Behaviour> absent = {}) {
  if (absent && !fields::find(json, "behavior", where)) return *absent;
  const auto& name = fields::text(json, "behavior", where);
  if (name == "Removed") return Behaviour::kRemoved;
  if (name == "Isolated") return Behaviour::kIsolated;
  if (name == "MergedWithPrevious") return Behaviour::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behaviour::kMergedWithNext;
  if (name == "Contiguous") return Behaviour::kContiguous;
  fields::fail(where, "behavior", fmt::format("is {:?}, which is not supported", name));
}

struct Span {
  size_t begin, end;
  bool is_match;
};

void emit(std::vector<Piece>& out, const Piece& parent, size_t begin, size_t end) {
  if (begin < end) out.push_back({begin, end, parent.at_start && begin == parent.begin});
}

// Joins spans (which tile the piece) as the behaviour says and emits them.
void emit_spans(std::vector<Span>& spans, Behaviour behaviour, const Piece& parent, std::vector<Piece>& out) {
  bool previous = false;
  std::vector<Span> joined;
  switch (behaviour) {
    case Behaviour::kIsolated:
    case Behaviour::kRemoved:
      for (const Span& s : spans)
        if (behaviour == Behaviour::kIsolated || !s.is_match) emit(out, parent, s.begin, s.end);
      return;
    case Behaviour::kContiguous:
      for (const Span& s : spans) {
        if (s.is_match == previous && !joined.empty()) joined.back().end = s.end;
        else joined.push_back(s);
        previous = s.is_match;
      }
      break;
    case Behaviour::kMergedWithPrevious:
      for (const Span& s : spans) {
        if (s.is_match && !previous && !joined.empty()) joined.back().end = s.end;
        else joined.push_back(s);
        previous = s.is_match;
      }
      break;
    case Behaviour::kMergedWithNext:
      for (size_t i = spans.size(); i-- > 0;) {
        const Span& s = spans[i];
        if (s.is_match && !previous && !joined.empty()) joined.back().begin = s.begin;
        else joined.push_back(s);
        previous = s.is_match;
      }
      std::reverse(joined.begin(), joined.end());
      break;
  }
  for (const Span& s : joined) emit(out, parent, s.begin, s.end);
}

// A step that cuts. find(text, visit) calls visit(begin, end) for each match in a piece.
template <typename Find>
void cut(PreTokenized& t, Behaviour behaviour, bool invert, Find&& find) {
  std::vector<Piece> out;
  out.reserve(t.pieces.size() * 2);
  std::vector<Span> spans;
  for (const Piece& piece : t.pieces) {
    const std::string_view text = t.view(piece);
    size_t done = 0;
    if (behaviour == Behaviour::kIsolated) {  // the usual one, without a detour
      find(text, [&](size_t begin, size_t end) {
        emit(out, piece, piece.begin + done, piece.begin + begin);
        emit(out, piece, piece.begin + begin, piece.begin + end);
        done = end;
      });
      emit(out, piece, piece.begin + done, piece.end);
      continue;
    }
    spans.clear();
    find(text, [&](size_t begin, size_t end) {
      if (begin > done) spans.push_back({piece.begin + done, piece.begin + begin, invert});
      spans.push_back({piece.begin + begin, piece.begin + end, !invert});
      done = end;
    });
    if (done < text.size()) spans.push_back({piece.begin + done, piece.end, invert});
    emit_spans(spans, behaviour, piece, out);
  }
  t.pieces = std::move(out);
}

// Matches that are single characters.
template <typename Is>
auto chars_that(Is is) {
  return [is](std::string_view text, auto&& visit) {
    for (size_t i = 0; i < text.size();) {
      const size_t n = unicode::char_length(text[i]);
      if (is(unicode::front_char(text.substr(i)))) visit(i, i + n);
      i += n;
    }
  };
}

// A step that changes the text: change(piece, out) appends the new text of a piece.
template <typename Change>
void rewrite(PreTokenized& t, Change&& change) {
  std::string out;
  out.reserve(t.text.size() + t.text.size() / 8 + 16);
  for (Piece& piece : t.pieces) {
    const size_t begin = out.size();
    change(t.view(piece), piece.at_start, out);
    piece.begin = begin, piece.end = out.size();
  }
  std::erase_if(t.pieces, [](const Piece& p) { return p.begin == p.end; });
  t.owned = std::move(out);
  t.text = t.owned;
}

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(const Json& json, std::string_view where, bool keep_bytes)
      : add_prefix_space_(fields::boolean(json, "add_prefix_space", where)), keep_bytes_(keep_bytes) {
    // The pattern of GPT-2 (openai/gpt-2, src/encoder.py).
    if (fields::boolean(json, "use_regex", where, true))
      regex_.emplace(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", where);
  }
  void apply(PreTokenized& t, Regex::Scratch& scratch) const override {
    if (add_prefix_space_)
      rewrite(t, [](std::string_view text, bool, std::string& out) {
        if (text[0] != ' ') out += ' ';
        out += text;
      });
    if (regex_)
      cut(t, Behaviour::kIsolated, false,
          [&](std::string_view text, auto&& visit) { regex_->for_each_match(text, scratch, visit); });
    if (!keep_bytes_)
      rewrite(t, [](std::string_view text, bool, std::string& out) { out += to_byte_level(text); });
  }

 private:
  bool add_prefix_space_, keep_bytes_;
  std::optional<Regex> regex_;
};

class Split : public PreTokenizer {
 public:
  Split(const Json& json, std::string_view where)
      : pattern_(fields::require(json, "pattern", where), fmt::format("{}.pattern", where)),
        behaviour_(parse_behaviour(json, where)),
        invert_(fields::boolean(json, "invert", where)) {}
  void apply(PreTokenized& t, Regex::Scratch& scratch) const override {
    cut(t, behaviour_, invert_,
        [&](std::string_view text, auto&& visit) { pattern_.for_each_match(text, scratch, visit); });
  }

 private:
  TextPattern pattern_;
  Behaviour behaviour_;
  bool invert_;
};

class Metaspace : public PreTokenizer {
 public:
  Metaspace(const Json& json, std::string_view where) : mark_(fields::text(json, "replacement", where)) {
    if (unicode::count_chars(mark_) != 1) fields::fail(where, "replacement", "is not one character");
    const std::string scheme = fields::text_or(json, "prepend_scheme", where, "always");
    if (scheme == "always") scheme_ = Scheme::kAlways;
    else if (scheme == "first") scheme_ = Scheme::kFirst;
    else if (scheme == "never") scheme_ = Scheme::kNever;
    else fields::fail(where, "prepend_scheme", fmt::format("is {:?}, which is not supported", scheme));
    if (!fields::boolean(json, "add_prefix_space", where, true)) {
      if (scheme_ != Scheme::kNever && fields::find(json, "prepend_scheme", where))
        fields::fail(where, "add_prefix_space", "is false but prepend_scheme is not \"never\"");
      scheme_ = Scheme::kNever;
    }
    split_ = fields::boolean(json, "split", where, true);
  }
  void apply(PreTokenized& t, Regex::Scratch&) const override {
    rewrite(t, [&](std::string_view text, bool at_start, std::string& out) {
      const bool marked = text[0] == ' ' || text.starts_with(mark_);
      if (!marked && (scheme_ == Scheme::kAlways || (scheme_ == Scheme::kFirst && at_start))) out += mark_;
      for (size_t done = 0; done < text.size();) {
        const size_t space = std::min(text.find(' ', done), text.size());
        out.append(text, done, space - done);
        if (space < text.size()) out += mark_;
        done = space + 1;
      }
    });
    if (split_)
      cut(t, Behaviour::kMergedWithNext, false, [&](std::string_view text, auto&& visit) {
        for (size_t at = text.find(mark_); at != text.npos; at = text.find(mark_, at + mark_.size()))
          visit(at, at + mark_.size());
      });
  }

 private:
  enum class Scheme { kAlways, kFirst, kNever };
  std::string mark_;
  Scheme scheme_ = Scheme::kAlways;
  bool split_ = true;
};

// Words, and runs of what is neither word nor space.
class Whitespace : public PreTokenizer {
 public:
  void apply(PreTokenized& t, Regex::Scratch&) const override {
    cut(t, Behaviour::kRemoved, true, [](std::string_view text, auto&& visit) {
      const auto kind = [&](size_t i) {
        const char32_t c = unicode::front_char(text.substr(i));
        return unicode::is_word(c) ? 1 : unicode::is_whitespace(c) ? 0 : 2;
      };
      for (size_t i = 0; i < text.size();) {
        const int first = kind(i);
        size_t end = i;
        do end += unicode::char_length(text[end]);
        while (end < text.size() && kind(end) == first);
        if (first != 0) visit(i, end);
        i = end;
      }
    });
  }
};

class FixedLength : public PreTokenizer {
 public:
  FixedLength(const Json& json, std::string_view where)
      : length_(fields::find(json, "length", where) ? fields::whole(json, "length", where, 1, 1 << 30) : 5) {}
  void apply(PreTokenized& t, Regex::Scratch&) const override {
    cut(t, Behaviour::kIsolated, false, [&](std::string_view text, auto&& visit) {
      for (size_t i = 0; i < text.size();) {
        size_t end = i;
        for (int64_t n = 0; n < length_ && end < text.size(); ++n) end += unicode::char_length(text[end]);
        visit(i, end);
        i = end;
      }
    });
  }

 private:
  int64_t length_;
};

// A splitter on a class of characters.
template <bool (*kIs)(char32_t)>
class CharClass : public PreTokenizer {
 public:
  explicit CharClass(Behaviour behaviour) : behaviour_(behaviour) {}
  void apply(PreTokenized& t, Regex::Scratch&) const override { cut(t, behaviour_, false, chars_that(kIs)); }

 private:
  Behaviour behaviour_;
};

class CharDelimiter : public PreTokenizer {
 public:
  CharDelimiter(const Json& json, std::string_view where) {
    const auto& text = fields::text(json, "delimiter", where);
    if (unicode::count_chars(text) != 1) fields::fail(where, "delimiter", "is not one character");
    delimiter_ = unicode::front_char(text);
  }
  void apply(PreTokenized& t, Regex::Scratch&) const override {
    cut(t, Behaviour::kRemoved, false, chars_that([d = delimiter_](char32_t c) { return c == d; }));
  }

 private:
  char32_t delimiter_;
};

}  // namespace

PreTokenized::PreTokenized(std::string_view input, bool at_start) : text(input) {
  if (!input.empty()) pieces.push_back({0, input.size(), at_start});
}

PreTokenizers::PreTokenizers(const Json& json, std::string_view where, bool bytes_at_end) {
  add(json, where, true, bytes_at_end);
}

void PreTokenizers::add(const Json& json, std::string_view where, bool last, bool bytes_at_end) {
  const auto& type = fields::text(json, "type", where);
  const auto step = [&](auto pre_tokenizer) { steps_.push_back(std::move(pre_tokenizer)); };
  if (type == "Sequence") {
    const Json& parts = fields::array(json, "pretokenizers", where);
    for (size_t i = 0; i < parts.size(); ++i)
      add(parts[i], fmt::format("{}.pretokenizers[{}]", where, i), last && i + 1 == parts.size(), bytes_at_end);
  } else if (type == "ByteLevel") {
    ends_in_bytes_ = last && bytes_at_end;
    step(std::make_unique<ByteLevel>(json, where, ends_in_bytes_));
  } else if (type == "Split") {
    step(std::make_unique<Split>(json, where));
  } else if (type == "Metaspace") {
    step(std::make_unique<Metaspace>(json, where));
  } else if (type == "Digits") {
    const bool each = fields::boolean(json, "individual_digits", where);
    step(std::make_unique<CharClass<unicode::is_numeric>>(each ? Behaviour::kIsolated : Behaviour::kContiguous));
  } else if (type == "Punctuation") {
    step(std::make_unique<CharClass<unicode::is_punctuation>>(parse_behaviour(json, where, Behaviour::kIsolated)));
  } else if (type == "Whitespace") {
    step(std::make_unique<Whitespace>());
  } else if (type == "WhitespaceSplit") {
    step(std::make_unique<CharClass<unicode::is_whitespace>>(Behaviour::kRemoved));
  } else if (type == "BertPreTokenizer") {
    step(std::make_unique<CharClass<unicode::is_whitespace>>(Behaviour::kRemoved));
    step(std::make_unique<CharClass<unicode::is_punctuation>>(Behaviour::kIsolated));
  } else if (type == "CharDelimiterSplit") {
    step(std::make_unique<CharDelimiter>(json, where));
  } else if (type == "FixedLength") {
    step(std::make_unique<FixedLength>(json, where));
  } else {
    throw InputError(fmt::format("{} is of type {:?}, which is not supported", where, type));
  }
}

}  // namespace tinyserve
