#include "text/tokenizer.h"

#include <algorithm>
#include <unordered_set>

#include "text/json_fields.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"

namespace tinyserve {
namespace {

// Ids index arrays: a hole larger than this is a mistake or an attack.
constexpr int64_t kMaxIdGap = 65'536;

}  // namespace

std::unique_ptr<EncodeScratch> ScratchPool::take() {
  {
    std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      auto scratch = std::move(free_.back());
      free_.pop_back();
      return scratch;
    }
  }
  return std::make_unique<EncodeScratch>();
}

void ScratchPool::give_back(std::unique_ptr<EncodeScratch> scratch) {
  // A text without spaces leaves arrays as long as itself: not worth keeping.
  constexpr size_t kKeptSymbols = 65'536;
  if (scratch->symbols.capacity() > kKeptSymbols) scratch->symbols = {};
  if (scratch->heap.capacity() > kKeptSymbols) scratch->heap = {};
  std::lock_guard lock(mutex_);
  if (free_.size() < kMaxKept) free_.push_back(std::move(scratch));
}

bool Tokenizer::Impl::has(int64_t id) const {
  return id >= 0 && id < id_end && (decoded_as.contains(static_cast<int32_t>(id)) || model->has(static_cast<int32_t>(id)));
}

int32_t Tokenizer::Impl::find(std::string_view token) const {
  const auto it = added_ids.find(std::string(token));
  return it != added_ids.end() ? it->second : model->find(token);
}

std::string_view Tokenizer::Impl::string_of(int32_t id) const {
  if (const auto it = decoded_as.find(id); it != decoded_as.end()) return it->second;
  return model->has(id) ? model->token(id) : std::string_view{};
}

void Tokenizer::Impl::add_token(AddedToken token, std::string_view where) {
  if (token.content.empty()) return;
  const int32_t known = find(token.content);
  if (known >= 0) {
    if (token.id >= 0 && token.id != known)
      throw InputError(fmt::format("{}: {:?} has the id {} here and {} elsewhere", where, token.content, token.id, known));
    token.id = known;
  } else if (token.id < 0) {
    token.id = id_end;
  } else if (decoded_as.contains(token.id) || model->has(token.id)) {
    throw InputError(fmt::format("{}: the id {} of {:?} belongs to {:?} already", where, token.id, token.content,
                                 string_of(token.id)));
  } else if (token.id > id_end + kMaxIdGap) {
    throw InputError(fmt::format("{}: {:?} has the id {}, far beyond the vocabulary of {}", where, token.content, token.id, id_end));
  }
  id_end = std::max(id_end, token.id + 1);
  if (const auto it = added_ids.find(token.content); it != added_ids.end()) {
    for (AddedToken& before : added)
      if (before.id == it->second) before = std::move(token);
    return;
  }
  added_ids.emplace(token.content, token.id);
  decoded_as.emplace(token.id, token.content);
  added.push_back(std::move(token));
}

void Tokenizer::Impl::finish_added_tokens(std::string_view where) {
  const std::string place = fmt::format("{}: added_tokens", where);
  std::unordered_set<std::string_view> special_strings;
  EncodeScratch scratch;
  for (const AddedToken& token : added) {
    if (token.special) special_strings.insert(token.content);
    std::string pattern = token.content;
    if (token.normalized && normalizer) {
      bool at_start = true;
      normalizer->apply(pattern, at_start, scratch.regex);
    }
    (token.normalized ? normalized_matcher : raw_matcher).add(token, pattern, place);
    // The package decodes such a token to its normalised form.
    decoded_as[token.id] = std::move(pattern);
  }
  special.assign(id_end, false);
  for (const AddedToken& token : added) special[token.id] = special_strings.contains(decoded_as[token.id]);
}

void Tokenizer::Impl::encode_text(std::string_view text, bool at_start, bool parse_special, EncodeScratch& scratch,
                                  std::vector<int32_t>& out) const {
  std::string storage;
  if (normalizer) {
    storage = text;
    normalizer->apply(storage, at_start, scratch.regex);
    text = storage;
  }
  const auto encode_segment = [&](std::string_view segment, bool segment_at_start) {
    if (!pre_tokenizer) {
      if (!segment.empty()) model->encode(segment, scratch, out);
      return;
    }
    PreTokenized tokenized(segment, segment_at_start);
    pre_tokenizer->apply(tokenized, scratch.regex);
    for (const auto& piece : tokenized.pieces) model->encode(tokenized.view(piece), scratch, out);
  };
  if (normalized_matcher.empty()) return encode_segment(text, at_start);
  for (const auto& segment : normalized_matcher.split(text, parse_special)) {
    if (segment.id >= 0) out.push_back(segment.id);
    else encode_segment(text.substr(segment.begin, segment.end - segment.begin), at_start && segment.begin == 0);
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens, bool parse_special) const {
  std::string storage;
  const std::string_view valid = unicode::replace_invalid_utf8(text, storage);
  auto scratch = impl_->scratches.take();
  scratch->regex.start(valid.size());
  std::vector<int32_t> ids;
  ids.reserve(valid.size() / 3 + 8);
  for (const auto& segment : impl_->raw_matcher.split(valid, parse_special)) {
    if (segment.id >= 0) ids.push_back(segment.id);
    else
      impl_->encode_text(valid.substr(segment.begin, segment.end - segment.begin), segment.begin == 0, parse_special,
                         *scratch, ids);
  }
  impl_->scratches.give_back(std::move(scratch));
  return impl_->post_processor.apply(std::move(ids), add_special_tokens);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (int32_t id : ids)
    if (impl_->has(id) && !(skip_special_tokens && impl_->special[id])) tokens.emplace_back(impl_->string_of(id));
  return impl_->decoder.decode(std::move(tokens));
}

std::string Tokenizer::token_bytes(int32_t id) const {
  return impl_->has(id) ? impl_->decoder.bytes(impl_->string_of(id), false) : "";
}

std::string Tokenizer::first_token_bytes(int32_t id) const {
  return impl_->has(id) ? impl_->decoder.bytes(impl_->string_of(id), true) : "";
}

bool Tokenizer::strips_leading_space() const {
  constexpr std::string_view kMarked = "\xE2\x96\x81x";  // ▁x
  return impl_->decoder.bytes(kMarked, true) != impl_->decoder.bytes(kMarked, false);
}

std::string Tokenizer::id_to_token(int32_t id) const { return std::string(impl_->string_of(id)); }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const int32_t id = impl_->find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

bool Tokenizer::is_special(int32_t id) const { return impl_->has(id) && impl_->special[id]; }
int32_t Tokenizer::vocab_size() const { return impl_->id_end; }
std::optional<int32_t> Tokenizer::bos_id() const { return impl_->bos; }
std::optional<int32_t> Tokenizer::eos_id() const { return impl_->eos; }
std::optional<int32_t> Tokenizer::pad_id() const { return impl_->pad; }
const std::string& Tokenizer::chat_template() const { return impl_->chat_template; }

AddedToken read_added_token(const Json& json, std::string_view where) {
  AddedToken token;
  if (json.is_string()) {
    token.content = json.get<std::string>();
    return token;
  }
  token.content = fields::text(json, "content", where);
  token.single_word = fields::boolean(json, "single_word", where, false);
  token.lstrip = fields::boolean(json, "lstrip", where, false);
  token.rstrip = fields::boolean(json, "rstrip", where, false);
  token.special = fields::boolean(json, "special", where, false);
  token.normalized = fields::boolean(json, "normalized", where, !token.special);
  return token;
}

std::unique_ptr<Tokenizer::Impl> read_tokenizer_json(const Json& json, std::string_view what) {
  const auto at = [&](std::string_view field) { return fmt::format("{}: {}", what, field); };
  if (!json.is_object()) throw InputError(fmt::format("{} is not a JSON object", what));
  if (fields::find(json, "version", what) && fields::text(json, "version", what) != "1.0")
    fields::fail(what, "version", fmt::format("is {:?}, not \"1.0\"", fields::text(json, "version", what)));
  auto impl = std::make_unique<Tokenizer::Impl>();
  const Json& model = fields::require(json, "model", what);
  // Only byte-pair encoding takes raw bytes, which saves writing each text in the byte-level alphabet.
  const bool may_take_bytes = model.is_object() && model.contains("merges");
  if (const Json* part = fields::find(json, "normalizer", what)) impl->normalizer = make_normalizer(*part, at("normalizer"));
  if (const Json* part = fields::find(json, "pre_tokenizer", what))
    impl->pre_tokenizer.emplace(*part, at("pre_tokenizer"), may_take_bytes);
  if (const Json* part = fields::find(json, "decoder", what)) impl->decoder = TokenDecoder(*part, at("decoder"));
  impl->model = make_token_model(model, impl->pre_tokenizer && impl->pre_tokenizer->ends_in_bytes(), at("model"));
  impl->id_end = impl->model->id_end();
  if (fields::find(json, "added_tokens", what)) {
    const Json& tokens = fields::array(json, "added_tokens", what);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const std::string where = fmt::format("{}: added_tokens[{}]", what, i);
      if (!tokens[i].is_object()) throw InputError(fmt::format("{} is not an object", where));
      AddedToken token = read_added_token(tokens[i], where);
      token.id = static_cast<int32_t>(fields::whole(tokens[i], "id", where, 0, INT32_MAX - 1));
      impl->add_token(std::move(token), where);
    }
  }
  return impl;
}

void set_post_processor(Tokenizer::Impl& impl, const Json& json, std::string_view what) {
  if (const Json* part = fields::find(json, "post_processor", what))
    impl.post_processor =
        PostProcessor(*part, fmt::format("{}: post_processor", what), [&](int64_t id) { return impl.has(id); });
}

std::unique_ptr<Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json, std::string_view what) {
  const Json json = parse_json(tokenizer_json, what);
  auto impl = read_tokenizer_json(json, what);
  impl->finish_added_tokens(what);
  set_post_processor(*impl, json, what);
  return std::make_unique<Tokenizer>(std::move(impl));
}

std::unique_ptr<Tokenizer::Impl> read_sentencepiece(std::string_view model, std::string_view what) {
  SentencePieceFile file = load_sentencepiece(model, what);
  auto impl = std::make_unique<Tokenizer::Impl>();
  impl->model = std::move(file.model);
  impl->id_end = impl->model->id_end();
  for (int32_t id : file.control_ids)
    impl->add_token({.content = std::string(impl->model->token(id)), .id = id, .special = true}, what);
  if (file.unk_id >= 0) impl->decoded_as[file.unk_id] = file.unknown_surface;
  const auto optional_id = [](int32_t id) { return id < 0 ? std::nullopt : std::optional(id); };
  impl->bos = optional_id(file.bos_id);
  impl->eos = optional_id(file.eos_id);
  impl->pad = optional_id(file.pad_id);
  impl->decoder = TokenDecoder::sentencepiece(file.add_dummy_prefix);
  return impl;
}

std::unique_ptr<Tokenizer> Tokenizer::from_sentencepiece(std::string_view model, std::string_view what) {
  auto impl = read_sentencepiece(model, what);
  impl->finish_added_tokens(what);
  return std::make_unique<Tokenizer>(std::move(impl));
}

}  // namespace tinyserve
