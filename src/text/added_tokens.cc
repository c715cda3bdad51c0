#include "text/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"

namespace tinyserve {
namespace {

// Bounds the work per byte of text; the longest in use have some 100 bytes.
constexpr size_t kMaxPatternBytes = 4096;

bool ends_with_word(std::string_view text) {
  return !text.empty() && unicode::is_word(unicode::front_char(text.substr(unicode::previous_char(text, text.size()))));
}

bool starts_with_word(std::string_view text) { return !text.empty() && unicode::is_word(unicode::front_char(text)); }

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token, std::string_view pattern, std::string_view where) {
  if (pattern.empty() || pattern.size() > kMaxPatternBytes)
    throw InputError(fmt::format("{}: the token with id {} has {} bytes to look for, not 1 to {}", where, token.id,
                                 pattern.size(), kMaxPatternBytes));
  const int first = static_cast<unsigned char>(pattern[0]);
  only_first_byte_ = tokens_.empty() || only_first_byte_ == first ? first : -1;
  if (trie_.insert(pattern, static_cast<int32_t>(tokens_.size())) >= 0)
    throw InputError(fmt::format("{}: two tokens are the same text {:?}", where, pattern));
  tokens_.push_back(&token);
}

// Index of the next byte that a pattern begins with; size() when there is none.
size_t AddedTokenMatcher::next_candidate(std::string_view text, size_t from) const {
  if (only_first_byte_ >= 0) return std::min(text.find(static_cast<char>(only_first_byte_), from), text.size());
  while (from < text.size() && !trie_.begins(static_cast<unsigned char>(text[from]))) ++from;
  return from;
}

std::vector<AddedTokenMatcher::Segment> AddedTokenMatcher::split(std::string_view text, bool parse_special) const {
  std::vector<Segment> out;
  size_t done = 0;
  const auto emit = [&](size_t begin, size_t end, int32_t id) {
    if (begin < end || id >= 0) out.push_back({begin, end, id});
  };
  for (size_t at = tokens_.empty() ? text.size() : next_candidate(text, 0); at < text.size();) {
    int32_t index = 0;
    const size_t length = trie_.longest_prefix(text.substr(at), index);
    if (length == 0) {
      at = next_candidate(text, at + 1);
      continue;
    }
    // Whether or not it counts, the search goes on behind it.
    size_t begin = at, end = at + length;
    at = next_candidate(text, end);
    const AddedToken& token = *tokens_[index];
    if (token.special && !parse_special) continue;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    if (token.lstrip) {
      while (begin > done) {
        const size_t last = unicode::previous_char(text, begin);
        if (!unicode::is_whitespace(unicode::front_char(text.substr(last)))) break;
        begin = last;
      }
      begin = std::max(begin, done);
    }
    if (token.rstrip)
      while (end < text.size() && unicode::is_whitespace(unicode::front_char(text.substr(end))))
        end += unicode::char_length(text[end]);
    emit(done, begin, -1);
    emit(begin, end, token.id);
    done = end;
  }
  emit(done, text.size(), -1);
  return out;
}

}  // namespace tinyserve
