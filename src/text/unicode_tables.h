#pragma once
// What the `tokenizers` package takes each code point for; unicode_tables.cc is generated (its head names the script).

#include <cstdint>
#include <span>
#include <string_view>

namespace tinyserve::unicode {

struct CodeRange {
  char32_t first, last;  ///< both inside
};
struct LowerPair {
  char32_t upper, lower;
};
/// Characters of one Unicode general category beyond those of Unicode 14.
struct RegexCategory {
  std::string_view name;
  std::span<const CodeRange> more;
};

// Each sorted, without overlap.
extern const std::span<const CodeRange> kNumeric;        ///< Digits: general category N
extern const std::span<const CodeRange> kPunctuation;    ///< Punctuation: general category P and ASCII punctuation
extern const std::span<const CodeRange> kWhitespace;     ///< White_Space
extern const std::span<const CodeRange> kWord;           ///< `\w` of added tokens with single_word
extern const std::span<const CodeRange> kCombiningMark;  ///< StripAccents: general category M
extern const std::span<const CodeRange> kNotNormalized;  ///< no decomposition and combining class 0 whatever Unicode says
extern const std::span<const LowerPair> kLower;          ///< lower case beyond Unicode 14
extern const std::span<const CodeRange> kExtend;         ///< grapheme extenders beyond Unicode 14
// For patterns: `\p{X}` is the library's \p{X} and `more`.
extern const std::span<const RegexCategory> kRegexCategories;
extern const std::span<const CodeRange> kRegexWordExtra;  ///< `\w` beyond [\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}]
extern const std::span<const CodeRange> kRegexAlphabetic;  ///< `\p{Alphabetic}` beyond Unicode 14
extern const std::span<const CodeRange> kRegexHan;        ///< the whole of `\p{Han}`

}  // namespace tinyserve::unicode
