#pragma once
// SentencePiece's compiled normalisation rules ("precompiled_charsmap"): a double-array trie and the replacements.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tinyserve {

class Charsmap {
 public:
  /// `blob`: 4 bytes little-endian size of the trie, its 4-byte units (darts-clone), replacements ended by NUL.
  /// Throws InputError when it is cut short or a unit points outside: afterwards no text can lead outside.
  Charsmap(std::string_view blob, std::string_view where);

  /// The replacement of the shortest rule that `text` begins with; nothing if there is none.
  std::optional<std::string_view> find(std::string_view text) const;

  /// As the `tokenizers` package does: a grapheme cluster of up to 5 bytes is replaced as a whole by what its first
  /// characters map to; in a longer one each character by itself.
  std::string apply(std::string_view text) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace tinyserve
