#pragma once
// The "decoder" of a tokenizer.json: from the strings of the vocabulary back to text.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/regex.h"

namespace tinyserve {

class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  /// Changes all tokens of a text at once.
  virtual void apply(std::vector<std::string>& tokens, Regex::Scratch& scratch) const = 0;
  /// Changes one token, by itself, to the bytes that it gives a text; `first`: of the text. `fused`: an earlier step has
  /// joined the tokens, and sets it. What only the whole text can tell (U+FFFD, spaces at the end) is left out.
  virtual void apply_alone(std::string& token, bool first, bool& fused, Regex::Scratch& scratch) const = 0;
};

class TokenDecoder {
 public:
  /// No decoder: tokens with a space between.
  TokenDecoder() = default;
  /// Throws InputError, naming `where`, for a type that is unknown or not supported and for wrong fields.
  TokenDecoder(const Json& json, std::string_view where);
  /// What libsentencepiece does; `strip_space`: the model puts a space before every text.
  static TokenDecoder sentencepiece(bool strip_space);

  std::string decode(std::vector<std::string> tokens) const;
  std::string bytes(std::string_view token, bool first) const;

 private:
  void add(const Json& json, std::string_view where);
  std::vector<std::unique_ptr<DecoderStep>> steps_;
  bool joins_with_space_ = true;
};

}  // namespace tinyserve
