#pragma once
// The parts of a Tokenizer, and how they are put together. For tokenizer*.cc only.

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "text/added_tokens.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/token_model.h"
#include "text/tokenizer.h"

namespace tinyserve {

class GgufMetadata;

/// EncodeScratch objects, lent to one call at a time and kept for the next.
class ScratchPool {
 public:
  std::unique_ptr<EncodeScratch> take();
  void give_back(std::unique_ptr<EncodeScratch> scratch);

 private:
  static constexpr size_t kMaxKept = 16;  // about 2 MB each when full
  std::mutex mutex_;
  std::vector<std::unique_ptr<EncodeScratch>> free_;
};

struct Tokenizer::Impl {
  std::unique_ptr<TokenModel> model;
  std::unique_ptr<Normalizer> normalizer;      // may be null
  std::optional<PreTokenizers> pre_tokenizer;
  PostProcessor post_processor;
  TokenDecoder decoder;
  std::deque<AddedToken> added;                // stable addresses: the matchers point here
  AddedTokenMatcher raw_matcher, normalized_matcher;
  std::unordered_map<int32_t, std::string> decoded_as;  // the strings of added tokens, by id
  std::unordered_map<std::string, int32_t> added_ids;
  std::vector<bool> special;                   // [vocab_size]
  int32_t id_end = 0;
  std::optional<int32_t> bos, eos, pad;
  std::string chat_template;
  mutable ScratchPool scratches;

  bool has(int64_t id) const;
  int32_t find(std::string_view token) const;  // -1: none
  std::string_view string_of(int32_t id) const;

  /// Adds a token, or changes the flags of one that is there. token.id: -1 for "as the vocabulary has it, or else the
  /// next free one"; any other must agree with the vocabulary. Throws InputError, naming `where`.
  void add_token(AddedToken token, std::string_view where);
  /// Once the model, the normaliser and all added tokens are there: builds the matchers and tables.
  void finish_added_tokens(std::string_view where);

  void encode_text(std::string_view text, bool at_start, bool parse_special, EncodeScratch& scratch,
                   std::vector<int32_t>& out) const;
};

/// The Impl of a tokenizer.json without its post-processor, whose ids may be tokens that other files add: call
/// finish_added_tokens(), then set_post_processor(). Throws InputError.
std::unique_ptr<Tokenizer::Impl> read_tokenizer_json(const Json& json, std::string_view what);
void set_post_processor(Tokenizer::Impl& impl, const Json& tokenizer_json, std::string_view what);

/// The same for a tokenizer.model; control tokens are already added.
std::unique_ptr<Tokenizer::Impl> read_sentencepiece(std::string_view model, std::string_view what);

/// Whole, from tokenizer.ggml.* and tokenizer.chat_template. Throws InputError naming the file and the key.
std::unique_ptr<Tokenizer::Impl> read_gguf_tokenizer(const GgufMetadata& metadata);

/// The fields of a special token that files write as a string or as an object.
AddedToken read_added_token(const Json& json, std::string_view where);

}  // namespace tinyserve
