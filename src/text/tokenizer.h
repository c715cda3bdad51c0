#pragma once
// From text to token ids and back, as the model's own tokenizer files say.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tinyserve {

/// Gives the same ids and texts as the `tokenizers` package for a tokenizer.json (BPE, Unigram) and as `sentencepiece`
/// for a tokenizer.model; "truncation" and "padding" of the file are ignored, as a server must. Immutable: every member
/// function may be called from many threads at once.
class Tokenizer {
 public:
  /// Loads a Hugging Face folder: tokenizer.json or else tokenizer.model (SentencePiece) or else vocab.json and
  /// merges.txt (GPT-2), together with tokenizer_config.json, special_tokens_map.json, added_tokens.json and
  /// chat_template.jinja where they are there. A GGUF file carries all of it in its metadata. Throws InputError, naming
  /// the file and the field, when one is missing, broken, or asks for what is not supported.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder_or_gguf);
  /// From the text of a tokenizer.json alone; `what` names it in messages. Throws InputError.
  static std::unique_ptr<Tokenizer> from_json(std::string_view tokenizer_json, std::string_view what);
  /// From the content of a tokenizer.model alone; `what` names it in messages. Throws InputError.
  static std::unique_ptr<Tokenizer> from_sentencepiece(std::string_view model, std::string_view what);
  ~Tokenizer();

  /// `text` may be any bytes: ill-formed UTF-8 is read as U+FFFD, one per maximal subpart, as Python's
  /// errors="replace" does. `add_special_tokens`: as the file's post-processor says (<s> and the like).
  /// `parse_special`: special tokens written in the text (<|im_end|>) become those tokens; false, for text that is not
  /// to be trusted with them: they are ordinary text. Added tokens that are not special are always found.
  /// Throws InputError when the text has what the model cannot express (no unknown token, no bytes) or takes longer to
  /// split than any honest text.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens, bool parse_special) const;
  /// With parse_special, as the `tokenizers` package does.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const {
    return encode(text, add_special_tokens, true);
  }

  /// The text of `ids`: valid UTF-8, U+FFFD for bytes that are not. Ids outside the vocabulary are left out.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// The bytes that a token gives a text when it is not the first: of a whole character, of several, or of a part of
  /// one. For incremental decoding: first_token_bytes(first id), then token_bytes of each further id, joined, are
  /// decode() of them all, but for ill-formed UTF-8 (decode() gives U+FFFD; for byte-fallback tokens one for each byte
  /// of a run that is not well-formed as a whole). "" for an id outside the vocabulary. Special tokens give their text:
  /// who skips them asks is_special().
  std::string token_bytes(int32_t id) const;
  /// The same for the first token of a text, which loses its leading space where strips_leading_space().
  std::string first_token_bytes(int32_t id) const;
  /// Whether decode() leaves out a space at the very beginning (SentencePiece's, which encode() puts there).
  bool strips_leading_space() const;

  /// The string in the vocabulary ("Ġthe", "▁the", "<0x0A>"); "" for an id outside it.
  std::string id_to_token(int32_t id) const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  /// Whether decode(skip_special_tokens) leaves it out.
  bool is_special(int32_t id) const;
  /// One past the highest id, added tokens included.
  int32_t vocab_size() const;

  /// As tokenizer_config.json (or special_tokens_map.json, or a tokenizer.model) names them.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  /// The strings of those tokens, which chat templates ask for; "" where there is none.
  std::string bos_token() const { return bos_id() ? id_to_token(*bos_id()) : ""; }
  std::string eos_token() const { return eos_id() ? id_to_token(*eos_id()) : ""; }
  std::string pad_token() const { return pad_id() ? id_to_token(*pad_id()) : ""; }
  /// The text of chat_template.jinja or of tokenizer_config.json's chat_template (of several: the one named "default",
  /// or the only one); "" if there is none.
  const std::string& chat_template() const;

  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace tinyserve
