#pragma once
// Unicode normalisation forms, lower case and grapheme clusters, on valid UTF-8.

#include <string>
#include <string_view>

namespace tinyserve::unicode {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

/// UAX #15. Characters that the `tokenizers` package's tables do not know stay as they are (unicode_tables.h). Takes
/// O(n log n) whatever the text: a run of combining marks is sorted, not inserted one by one.
std::string normalize(std::string_view text, NormalForm form);

/// Full lower case, character by character (no context: a final sigma is not special).
std::string lower_case(std::string_view text);

/// Bytes of the extended grapheme cluster at the front of `text` (UAX #29); 0 when text is empty.
size_t grapheme_length(std::string_view text);

}  // namespace tinyserve::unicode
