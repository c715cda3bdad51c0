// Which files of a model folder make its tokenizer.

#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "base/mapped_file.h"
#include "model/gguf/gguf_model.h"
#include "text/json_fields.h"
#include "text/tokenizer.h"
#include "text/tokenizer_impl.h"

namespace tinyserve {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfigFile = "tokenizer_config.json";

bool file_exists(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

Json read_json(const fs::path& path) { return parse_json(read_text_file(path), path.string()); }

// The file's object; an empty one when there is no such file.
Json read_optional_object(const fs::path& path) {
  if (!file_exists(path)) return Json::object();
  Json json = read_json(path);
  if (!json.is_object()) throw InputError(fmt::format("{} is not a JSON object", path.string()));
  return json;
}

// The string of a special token such as bos_token: "x" or {"content": "x"}; "" when there is none.
std::string special_token(const Json& config, const Json& map, const char* key, const fs::path& folder) {
  for (const auto& [json, file] : {std::pair(&config, kConfigFile), std::pair(&map, "special_tokens_map.json")}) {
    const std::string where = (folder / file).string();
    if (const Json* value = fields::find(*json, key, where))
      return read_added_token(*value, fmt::format("{}: {}", where, key)).content;
  }
  return "";
}

// vocab.json and merges.txt of GPT-2, OPT and their like, as the tokenizer.json that says the same.
Json gpt2_as_json(const fs::path& folder, const Json& config) {
  Json model = {{"type", "BPE"}, {"vocab", read_json(folder / "vocab.json")}, {"merges", Json::array()}};
  const std::string merges = read_text_file(folder / "merges.txt");
  for (size_t begin = 0; begin < merges.size();) {
    const size_t end = std::min(merges.find('\n', begin), merges.size());
    std::string line = merges.substr(begin, end - begin);
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) model["merges"].push_back(std::move(line));
    begin = end + 1;
  }
  const bool add_prefix_space =
      fields::boolean(config, "add_prefix_space", (folder / kConfigFile).string(), false);
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"use_regex", true}};
  return {{"version", "1.0"}, {"pre_tokenizer", byte_level}, {"decoder", byte_level}, {"model", std::move(model)}};
}

// Tokens that other files add: added_tokens.json {"token": id}, and tokenizer_config.json's added_tokens_decoder
// {"id": {"content": ..}}. What the tokenizer's own file has already stays as it is.
void add_tokens_of_config(Tokenizer::Impl& impl, const Json& config, const fs::path& folder) {
  std::vector<AddedToken> tokens;
  const std::string config_path = (folder / kConfigFile).string();
  if (const Json* decoder = fields::find(config, "added_tokens_decoder", config_path)) {
    if (!decoder->is_object()) fields::fail(config_path, "added_tokens_decoder", "is not an object");
    for (const auto& [key, value] : decoder->items()) {
      const std::string where = fmt::format("{}: added_tokens_decoder[{:?}]", config_path, key);
      AddedToken token = read_added_token(value, where);
      const Json id = Json::parse(key, nullptr, false);
      token.id = static_cast<int32_t>(fields::whole(id, where, 0, INT32_MAX - 1));
      tokens.push_back(std::move(token));
    }
  }
  const fs::path added_path = folder / "added_tokens.json";
  const Json added = read_optional_object(added_path);
  for (const auto& [content, id] : added.items())
    tokens.push_back({.content = content,
                      .id = static_cast<int32_t>(fields::whole(
                          id, fmt::format("{}[{:?}]", added_path.string(), content), 0, INT32_MAX - 1))});
  std::stable_sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  for (AddedToken& token : tokens) {
    if (impl.added_ids.contains(token.content)) continue;
    const int32_t known = impl.find(token.content);
    if ((known >= 0 && known != token.id) || (known < 0 && impl.has(token.id))) {
      log_warn(fmt::format("{}: the token {:?} with id {} does not agree with the vocabulary and is left out", folder.string(),
                           token.content, token.id));
      continue;
    }
    impl.add_token(std::move(token), folder.string());
  }
}

void add_special_tokens(Tokenizer::Impl& impl, const Json& config, const Json& map, const fs::path& folder) {
  const auto set = [&](const char* key, std::optional<int32_t>* id) {
    const std::string content = special_token(config, map, key, folder);
    if (content.empty()) return;
    const int32_t known = impl.find(content);
    if (known < 0) {
      // A new id would lie outside the model's embedding.
      log_warn(fmt::format("{}: {} is {:?}, which is not in the vocabulary: ignored", folder.string(), key, content));
      return;
    }
    if (id) *id = known;
    if (!impl.added_ids.contains(content))
      impl.add_token({.content = content, .id = known, .special = true}, folder.string());
  };
  set("bos_token", &impl.bos);
  set("eos_token", &impl.eos);
  set("pad_token", &impl.pad);
  set("unk_token", nullptr);
}

std::string read_chat_template(const Json& config, const fs::path& folder) {
  if (const fs::path path = folder / "chat_template.jinja"; file_exists(path)) return read_text_file(path, 1 << 20);
  const std::string where = (folder / kConfigFile).string();
  const Json* value = fields::find(config, "chat_template", where);
  if (!value) return "";
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) fields::fail(where, "chat_template", "is neither a string nor a list of named templates");
  for (const Json& entry : *value) {
    const std::string place = fmt::format("{}: chat_template", where);
    if (value->size() == 1 || fields::text(entry, "name", place) == "default") return fields::text(entry, "template", place);
  }
  return "";
}

// [bos, text] or [text, eos]: for files that have no post-processor of their own.
void add_bos_and_eos(Tokenizer::Impl& impl, const Json& config, bool bos_by_default, const fs::path& folder) {
  const std::string where = (folder / kConfigFile).string();
  Json single = Json::array(), specials = Json::object();
  const auto special = [&](const char* name, const std::optional<int32_t>& id) {
    if (!id) fields::fail(where, fmt::format("add_{}_token", name), fmt::format("is true but there is no {}_token", name));
    single.push_back({{"SpecialToken", {{"id", name}}}});
    specials[name] = {{"ids", {*id}}};
  };
  if (fields::boolean(config, "add_bos_token", where, bos_by_default && impl.bos)) special("bos", impl.bos);
  single.push_back({{"Sequence", {{"id", "A"}}}});
  if (fields::boolean(config, "add_eos_token", where, false)) special("eos", impl.eos);
  const Json processor = {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", specials}};
  set_post_processor(impl, {{"post_processor", processor}}, where);
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::load(const fs::path& folder) {
  if (is_gguf(folder)) return std::make_unique<Tokenizer>(read_gguf_tokenizer(GgufModel(folder).metadata()));
  const Json config = read_optional_object(folder / kConfigFile);
  const Json map = read_optional_object(folder / "special_tokens_map.json");
  const auto complete = [&](Impl& impl, const fs::path& file) {
    add_tokens_of_config(impl, config, folder);
    add_special_tokens(impl, config, map, folder);
    impl.finish_added_tokens(file.string());
    impl.chat_template = read_chat_template(config, folder);
  };
  if (const fs::path path = folder / "tokenizer.json"; file_exists(path)) {
    const Json json = read_json(path);
    auto impl = read_tokenizer_json(json, path.string());
    complete(*impl, path);
    set_post_processor(*impl, json, path.string());
    return std::make_unique<Tokenizer>(std::move(impl));
  }
  if (const fs::path path = folder / "tokenizer.model"; file_exists(path)) {
    auto impl = read_sentencepiece(read_text_file(path), path.string());
    complete(*impl, path);
    add_bos_and_eos(*impl, config, true, folder);
    return std::make_unique<Tokenizer>(std::move(impl));
  }
  if (const fs::path path = folder / "vocab.json"; file_exists(path)) {
    if (!file_exists(folder / "merges.txt"))
      throw InputError(fmt::format("{} has vocab.json but not merges.txt, which belongs to it", folder.string()));
    auto impl = read_tokenizer_json(gpt2_as_json(folder, config), path.string());
    complete(*impl, path);
    add_bos_and_eos(*impl, config, false, folder);
    return std::make_unique<Tokenizer>(std::move(impl));
  }
  throw InputError(fmt::format("{} has no tokenizer: neither tokenizer.json nor tokenizer.model nor vocab.json", folder.string()));
}

}  // namespace tinyserve
