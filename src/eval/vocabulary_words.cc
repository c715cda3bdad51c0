#include "eval/vocabulary_words.h"

#include <algorithm>

namespace tinyserve::eval {

std::vector<std::string> vocabulary_words(const Tokenizer& tokenizer) {
  constexpr size_t kShortest = 4;
  std::vector<std::string> words;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.is_special(id)) continue;
    const std::string bytes = tokenizer.token_bytes(id);
    if (bytes.size() > kShortest && bytes[0] == ' ' && std::all_of(bytes.begin() + 1, bytes.end(), [](char c) { return c >= 'a' && c <= 'z'; }))
      words.push_back(bytes.substr(1));
  }
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  return words;
}

}  // namespace tinyserve::eval
