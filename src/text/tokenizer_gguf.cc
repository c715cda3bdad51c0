// The tokenizer in a GGUF file's metadata (tokenizer.ggml.*): byte-level BPE with a pre-tokenizer known by name
// ("gpt2"), or a SentencePiece vocabulary with scores ("llama", Gemma's too).

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "model/gguf/gguf_model.h"
#include "text/bpe.h"
#include "text/json_fields.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"

namespace tinyserve {
namespace {

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr size_t kMaxTokens = 1 << 24;

/// As tokenizer.ggml.token_type numbers them; SentencePiece's own numbers.
enum TokenType : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// Split patterns of the models' tokenizer.json files, by the name that GGUF gives them.
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct PreTokenizerName {
  std::string_view name;
  std::string_view pattern = {};  ///< empty: GPT-2's, which is ByteLevel's own
  bool digits = false;            ///< every digit stands alone
  bool ignore_merges = false;     ///< a piece that is a token is that token
  bool nfc = false;               ///< text is composed first
  bool adds_bos = false;          ///< unless the file says otherwise
};
constexpr PreTokenizerName kPreTokenizers[] = {
    {.name = "gpt-2"},
    {.name = "gpt2"},
    {.name = "llama-bpe", .pattern = kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "llama3", .pattern = kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "llama-v3", .pattern = kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "qwen2", .pattern = kQwen2Pattern, .nfc = true},
    {.name = "deepseek-r1-qwen", .pattern = kQwen2Pattern, .nfc = true},
    {.name = "smollm", .digits = true},
};

const PreTokenizerName& find_pre_tokenizer(const GgufMetadata& meta) {
  constexpr const char* kKey = "tokenizer.ggml.pre";
  // Files from before there were names are GPT-2's or wrong.
  const std::string_view wanted = meta.get_text(kKey, "gpt-2");
  std::string known;
  for (const PreTokenizerName& pre : kPreTokenizers) {
    if (pre.name == wanted) return pre;
    known += (known.empty() ? "" : ", ") + std::string(pre.name);
  }
  meta.fail(kKey, fmt::format("is {:?}, a way of splitting text that is not known here; these are: {}", wanted, known));
}

struct Tokens {
  std::vector<std::string_view> text;
  std::vector<int64_t> type;
};

Tokens read_tokens(const GgufMetadata& meta) {
  constexpr const char* kTypes = "tokenizer.ggml.token_type";
  Tokens tokens{.text = meta.get_texts(kTokens), .type = {}};
  const size_t count = tokens.text.size();
  if (count == 0 || count > kMaxTokens)
    meta.fail(kTokens, fmt::format("holds {} tokens; 1 to {} are allowed", count, kMaxTokens));
  if (meta.has(kTypes))
    tokens.type = meta.get_integers(kTypes, 0, 6);
  else
    tokens.type.assign(count, kNormal);
  if (tokens.type.size() != count)
    meta.fail(kTypes, fmt::format("holds {} types for {} tokens", tokens.type.size(), count));
  for (size_t id = 0; id < count; ++id)
    if (!unicode::is_valid_utf8(tokens.text[id]))
      meta.fail(kTokens, fmt::format("holds a token (id {}) that is not UTF-8", id));
  return tokens;
}

std::optional<int32_t> special_id(const GgufMetadata& meta, std::string_view name, size_t count) {
  const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
  if (!meta.has(key)) return std::nullopt;
  // -1 and its unsigned twin stand for "none" in some files.
  const int64_t id = meta.get_integer(key, -1, UINT32_MAX);
  if (id == -1 || id == int64_t{UINT32_MAX}) return std::nullopt;
  return static_cast<int32_t>(meta.get_integer(key, 0, static_cast<int64_t>(count) - 1));
}

void add_special_ids(Tokenizer::Impl& impl, const GgufMetadata& meta, const Tokens& tokens) {
  impl.bos = special_id(meta, "bos", tokens.text.size());
  impl.eos = special_id(meta, "eos", tokens.text.size());
  impl.pad = special_id(meta, "padding", tokens.text.size());
}

// Control tokens are special; user-defined ones are found in every text, as they stand.
void add_tokens(Tokenizer::Impl& impl, const GgufMetadata& meta, const Tokens& tokens, bool user_defined) {
  for (size_t id = 0; id < tokens.text.size(); ++id)
    if (tokens.type[id] == kControl || (user_defined && tokens.type[id] == kUserDefined))
      impl.add_token({.content = std::string(tokens.text[id]),
                      .id = static_cast<int32_t>(id),
                      .special = tokens.type[id] == kControl},
                     meta.file());
}

void add_bos_and_eos(Tokenizer::Impl& impl, const GgufMetadata& meta, bool bos_by_default) {
  Json single = Json::array(), specials = Json::object();
  const auto special = [&](const char* name, const std::optional<int32_t>& id) {
    if (!id)
      meta.fail(fmt::format("tokenizer.ggml.add_{}_token", name),
                fmt::format("is true, but there is no tokenizer.ggml.{}_token_id", name));
    single.push_back({{"SpecialToken", {{"id", name}}}});
    specials[name] = {{"ids", {*id}}};
  };
  if (meta.get_flag("tokenizer.ggml.add_bos_token", bos_by_default && impl.bos)) special("bos", impl.bos);
  single.push_back({{"Sequence", {{"id", "A"}}}});
  if (meta.get_flag("tokenizer.ggml.add_eos_token", false)) special("eos", impl.eos);
  const Json processor = {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", specials}};
  set_post_processor(impl, {{"post_processor", processor}}, meta.file());
}

std::unique_ptr<Tokenizer::Impl> byte_level_bpe(const GgufMetadata& meta) {
  const PreTokenizerName& pre = find_pre_tokenizer(meta);
  const Tokens tokens = read_tokens(meta);
  auto impl = std::make_unique<Tokenizer::Impl>();
  if (pre.nfc) impl->normalizer = make_normalizer({{"type", "NFC"}}, meta.file());
  Json steps = Json::array();
  if (pre.digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  if (!pre.pattern.empty())
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pre.pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", pre.pattern.empty()}};
  steps.push_back(byte_level);
  impl->pre_tokenizer.emplace(Json{{"type", "Sequence"}, {"pretokenizers", steps}}, meta.file(), true);
  impl->decoder = TokenDecoder(byte_level, meta.file());

  Vocabulary vocabulary;
  size_t bytes = 0;
  for (const std::string_view token : tokens.text) bytes += token.size();
  vocabulary.reserve(tokens.text.size(), bytes);
  for (size_t id = 0; id < tokens.text.size(); ++id) {
    // Unused ids pad the embedding to a round size; no text is made of them.
    if (tokens.type[id] == kUnused || tokens.text[id].empty()) continue;
    if (!vocabulary.add(tokens.text[id], static_cast<int32_t>(id)))
      meta.fail(kTokens,
                fmt::format("holds {:?} twice, as {} and {}", tokens.text[id], vocabulary.find(tokens.text[id]), id));
  }
  const std::vector<std::string_view> merges = meta.get_texts("tokenizer.ggml.merges");
  impl->model = make_bpe_model(std::move(vocabulary), merges, {.ignore_merges = pre.ignore_merges, .byte_level = true},
                               meta.file() + ": tokenizer.ggml.merges");
  impl->id_end = static_cast<int32_t>(tokens.text.size());
  add_special_ids(*impl, meta, tokens);
  add_tokens(*impl, meta, tokens, true);
  impl->finish_added_tokens(meta.file());
  add_bos_and_eos(*impl, meta, pre.adds_bos);
  return impl;
}

// protobuf's wire format (https://protobuf.dev/programming-guides/encoding), as much as a ModelProto needs.
class ProtoWriter {
 public:
  void varint(uint64_t value) {
    for (; value >= 128; value >>= 7) out_ += static_cast<char>(value | 128);
    out_ += static_cast<char>(value);
  }
  void number(int field, uint64_t value) {
    varint(static_cast<uint64_t>(field) << 3);
    varint(value);
  }
  void floating(int field, float value) {
    varint(static_cast<uint64_t>(field) << 3 | 5);
    char bytes[4];
    std::memcpy(bytes, &value, 4);
    out_.append(bytes, 4);
  }
  void bytes(int field, std::string_view value) {
    varint(static_cast<uint64_t>(field) << 3 | 2);
    varint(value.size());
    out_ += value;
  }
  const std::string& text() const { return out_; }
  void clear() { out_.clear(); }

 private:
  std::string out_;
};

// Converters write a user-defined run of spaces, as Gemma has them, as the spaces that it stands for, though all other
// tokens have the space mark. The library looks for pieces in text whose spaces are marks already, so here, by id, are
// those tokens with marks; without the ones that are another token then, which the library would refuse.
std::unordered_map<size_t, std::string> with_space_marks(const Tokens& tokens) {
  std::unordered_map<size_t, std::string> out;
  for (size_t id = 0; id < tokens.text.size(); ++id) {
    if (tokens.type[id] != kUserDefined || tokens.text[id].find(' ') == std::string_view::npos) continue;
    for (const char c : tokens.text[id]) c == ' ' ? out[id] += "\xE2\x96\x81" : out[id] += c;
  }
  if (out.empty()) return out;
  const std::unordered_set<std::string_view> known(tokens.text.begin(), tokens.text.end());
  std::erase_if(out, [&](const auto& token) { return known.contains(token.second); });
  return out;
}

// The tokenizer.model that the vocabulary came from, as far as the metadata tells, for libsentencepiece to run.
std::string sentencepiece_proto(const GgufMetadata& meta, const Tokens& tokens) {
  constexpr const char* kScores = "tokenizer.ggml.scores";
  const size_t count = tokens.text.size();
  const std::vector<float> scores = meta.get_floats(kScores);
  if (scores.size() != count) meta.fail(kScores, fmt::format("holds {} scores for {} tokens", scores.size(), count));
  ProtoWriter proto, part;
  // sentencepiece_model.proto: SentencePiece.piece 1, score 2, type 3.
  bool has_bytes = false;
  const int64_t unknown = special_id(meta, "unknown", count).value_or(-1);
  const std::unordered_map<size_t, std::string> marked = with_space_marks(tokens);
  for (size_t id = 0; id < count; ++id) {
    part.clear();
    const auto it = marked.find(id);
    part.bytes(1, it == marked.end() ? tokens.text[id] : it->second);
    part.floating(2, scores[id]);
    // Some files count the unknown token as a control token; the library insists on one that is unknown.
    const int64_t type = static_cast<int64_t>(id) == unknown ? kUnknown
                         : tokens.type[id] == 0              ? kNormal
                                                             : tokens.type[id];
    part.number(3, static_cast<uint64_t>(type));
    proto.bytes(1, part.text());
    has_bytes = has_bytes || tokens.type[id] == kByte;
  }
  // TrainerSpec.model_type 3 (2: BPE), byte_fallback 35, unk_id 40, bos_id 41, eos_id 42, pad_id 43.
  part.clear();
  part.number(3, 2);
  part.number(35, has_bytes);
  int field = 40;
  for (const char* name : {"unknown", "bos", "eos", "padding"})
    part.number(field++, static_cast<uint64_t>(int64_t{special_id(meta, name, count).value_or(-1)}));
  proto.bytes(2, part.text());
  // NormalizerSpec.name 1, precompiled_charsmap 2, add_dummy_prefix 3, remove_extra_whitespaces 4,
  // escape_whitespaces 5.
  part.clear();
  part.bytes(1, "identity");
  part.number(3, meta.get_flag("tokenizer.ggml.add_space_prefix", true));
  part.number(4, meta.get_flag("tokenizer.ggml.remove_extra_whitespaces", false));
  part.number(5, 1);
  proto.bytes(3, part.text());
  return proto.text();
}

std::unique_ptr<Tokenizer::Impl> scored(const GgufMetadata& meta) {
  if (meta.has("tokenizer.ggml.precompiled_charsmap"))
    meta.fail("tokenizer.ggml.precompiled_charsmap", "is there, but only vocabularies without one are read");
  const Tokens tokens = read_tokens(meta);
  auto impl = read_sentencepiece(sentencepiece_proto(meta, tokens), meta.file());
  add_special_ids(*impl, meta, tokens);
  add_tokens(*impl, meta, tokens, false);  // libsentencepiece finds user-defined ones by itself
  impl->finish_added_tokens(meta.file());
  add_bos_and_eos(*impl, meta, true);
  return impl;
}

}  // namespace

std::unique_ptr<Tokenizer::Impl> read_gguf_tokenizer(const GgufMetadata& meta) {
  constexpr const char* kModel = "tokenizer.ggml.model";
  const std::string_view model = meta.get_text(kModel);
  if (model != "gpt2" && model != "llama") meta.fail(kModel, fmt::format("is {:?}; gpt2 and llama are read", model));
  auto impl = model == "gpt2" ? byte_level_bpe(meta) : scored(meta);
  impl->chat_template = std::string(meta.get_text("tokenizer.chat_template", ""));
  return impl;
}

}  // namespace tinyserve
