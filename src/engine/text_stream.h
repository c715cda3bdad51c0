#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "text/incremental_decoder.h"
#include "text/stop_matcher.h"

namespace tinyserve {

struct SamplingParams;

/// What the engine needs to know of a token's text. Tokenizer has it (engine.cc); tests bring their own.
class TokenText {
 public:
  virtual ~TokenText() = default;
  virtual std::string token_bytes(int32_t id) const = 0;  ///< raw bytes, perhaps part of a character
  virtual bool is_special(int32_t id) const = 0;
};

/// The text of one choice as it grows: whole UTF-8 characters only, and nothing that could be the beginning of a stop
/// string. It goes on after the prompt's text, so a space at its beginning stays.
class TextStream {
 public:
  /// `tokens` outlives it. `stops`: the request's, shared by its choices; null for none.
  TextStream(const TokenText& tokens, const SamplingParams& params, std::shared_ptr<const StopSet> stops);

  /// Appends a token's text. With `match_stops`, stop strings that begin in it or in earlier such text are looked for;
  /// returns the one that is complete, or null. The text is cut before it (after it with include_stop_in_output).
  const std::string* add(int32_t token, bool match_stops);
  /// No more tokens: what was held back may go. A character that never became whole is U+FFFD.
  void finish();
  /// What may be shown since the last call.
  std::string take() { return std::exchange(ready_, {}); }

 private:
  const TokenText* tokens_;
  bool skip_special_;
  IncrementalDecoder decoder_;
  StopMatcher matcher_;
  std::string ready_;
};

}  // namespace tinyserve
