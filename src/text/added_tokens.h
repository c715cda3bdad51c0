#pragma once
// Tokens that are found in a text before the model sees it: special ones and others added by hand.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"

namespace tinyserve {

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool single_word = false;  ///< only where no letter or digit touches it
  bool lstrip = false;       ///< takes white space on its left with it
  bool rstrip = false;       ///< and on its right
  bool normalized = false;   ///< looked for, itself normalised, in the normalised text; else in the text as given
  bool special = false;      ///< left out by decode(skip_special_tokens)
};

/// Finds tokens leftmost first and of those the longest, as the `tokenizers` package does.
class AddedTokenMatcher {
 public:
  struct Segment {
    size_t begin, end;  ///< bytes
    int32_t id;         ///< -1: text between tokens
  };
  /// `token` is kept by address. `pattern` is what to look for. Throws InputError, naming `where`, when `pattern` is
  /// empty, longer than 4096 bytes, or that of another token.
  void add(const AddedToken& token, std::string_view pattern, std::string_view where);
  bool empty() const { return trie_.empty(); }
  /// Cuts `text` into segments; those without bytes are left out. `parse_special` false: special tokens are text.
  std::vector<Segment> split(std::string_view text, bool parse_special) const;

 private:
  size_t next_candidate(std::string_view text, size_t from) const;

  ByteTrie trie_;  // pattern -> index in tokens_
  std::vector<const AddedToken*> tokens_;
  int only_first_byte_ = -1;  // >= 0: every pattern begins with it
};

}  // namespace tinyserve
