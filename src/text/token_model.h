#pragma once
// What turns one piece of text (a word, or a whole text) into ids.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/piece_cache.h"
#include "text/regex.h"

namespace tinyserve {

/// Memory that encoding needs, reused from call to call; one thread at a time.
struct EncodeScratch {
  struct Symbol {
    int32_t id;
    int32_t previous, next;  ///< index, -1 for none
  };
  struct Merge {
    uint32_t rank, position;
    int32_t id;
  };
  PieceCache cache;
  Regex::Scratch regex;
  std::vector<Symbol> symbols;
  std::vector<Merge> heap;
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the ids of `piece` (valid UTF-8 of one or more characters; raw bytes for a byte-level model).
  /// Throws InputError for a character that the model has no token for, where it may not leave it out.
  virtual void encode(std::string_view piece, EncodeScratch& scratch, std::vector<int32_t>& out) const = 0;
  /// -1 when there is none.
  virtual int32_t find(std::string_view token) const = 0;
  virtual bool has(int32_t id) const = 0;
  /// Of an id that has() accepts.
  virtual std::string_view token(int32_t id) const = 0;
  /// How many tokens, and one past the highest id.
  virtual size_t size() const = 0;
  virtual int32_t id_end() const = 0;
};

/// The "model" of a tokenizer.json. `byte_level`: pieces come as raw bytes, and the vocabulary is in the byte-level
/// alphabet (byte_level.h). `where` names the place in messages. Throws InputError.
std::unique_ptr<TokenModel> make_token_model(const Json& model, bool byte_level, std::string_view where);

// One factory a type, each in its own file.
std::unique_ptr<TokenModel> make_bpe_model(const Json& model, bool byte_level, std::string_view where);
std::unique_ptr<TokenModel> make_unigram_model(const Json& model, bool byte_level, std::string_view where);

}  // namespace tinyserve
