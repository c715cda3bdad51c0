#pragma once
// The "pre_tokenizer" of a tokenizer.json: how a text is cut into pieces that the model then sees one by one.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/regex.h"

namespace tinyserve {

/// A text on its way through pre-tokenizers: pieces, in order, of one buffer. Steps that only cut keep the buffer.
struct PreTokenized {
  struct Piece {
    size_t begin, end;  ///< bytes of text; never empty
    bool at_start;      ///< begins where the whole input begins
  };
  std::string_view text;
  std::string owned;  ///< what `text` views once a step has changed it
  std::vector<Piece> pieces;

  /// One piece, the whole of `input`, which outlives this.
  PreTokenized(std::string_view input, bool at_start);
  PreTokenized(const PreTokenized&) = delete;  // text may view owned
  std::string_view view(const Piece& piece) const { return text.substr(piece.begin, piece.end - piece.begin); }
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(PreTokenized& tokenized, Regex::Scratch& scratch) const = 0;
};

/// A chain of them.
class PreTokenizers {
 public:
  /// `bytes_at_end`: when the last step is ByteLevel, leave out its change to the byte-level alphabet (the model takes
  /// raw bytes); then ends_in_bytes() is true. Throws InputError, naming `where`.
  PreTokenizers(const Json& json, std::string_view where, bool bytes_at_end);
  void apply(PreTokenized& tokenized, Regex::Scratch& scratch) const {
    for (const auto& step : steps_) step->apply(tokenized, scratch);
  }
  bool ends_in_bytes() const { return ends_in_bytes_; }

 private:
  void add(const Json& json, std::string_view where, bool last, bool bytes_at_end);

  std::vector<std::unique_ptr<PreTokenizer>> steps_;
  bool ends_in_bytes_ = false;
};

}  // namespace tinyserve
