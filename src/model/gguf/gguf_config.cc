#include "model/gguf/gguf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "model/in_quotes.h"
#include "model/limits.h"

namespace tinyserve {
namespace {

struct Architecture {
  std::string_view name;          // general.architecture
  std::string_view architecture;  // config.json's
};
constexpr Architecture kArchitectures[] = {
    {"llama", "LlamaForCausalLM"},   {"qwen2", "Qwen2ForCausalLM"},   {"qwen3", "Qwen3ForCausalLM"},
    {"gemma2", "Gemma2ForCausalLM"}, {"gemma3", "Gemma3ForCausalLM"}, {"gpt2", "GPT2LMHeadModel"},
};

// Tokens at which an answer ends, by their text: files name one or two of them, chat templates may use another.
constexpr std::string_view kEndTexts[] = {"<|im_end|>",      "<|endoftext|>", "<|eot_id|>", "<|eom_id|>",
                                          "<|end_of_text|>", "<end_of_turn>", "</s>",       "<|end|>"};

const GgufTensor* find_tensor(const GgufModel& model, std::string_view name, size_t* file = nullptr) {
  for (size_t f = 0; f < model.num_files(); ++f)
    for (const GgufTensor& tensor : model.tensors(f))
      if (tensor.name == name) {
        if (file) *file = f;
        return &tensor;
      }
  return nullptr;
}

class ConfigWriter {
 public:
  explicit ConfigWriter(const GgufModel& model)
      : model_(model), meta_(model.metadata()), prefix_(std::string(meta_.get_text("general.architecture")) + ".") {}

  GgufConfig write();

 private:
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }
  bool has(std::string_view name) const { return meta_.has(key(name)); }
  /// Sets config field `field` from the architecture's key `name`, with bounds; required unless there is a fallback.
  void integer(const char* field, std::string_view name, int64_t min, int64_t max) {
    set(field, key(name), meta_.get_integer(key(name), min, max));
  }
  void number(const char* field, std::string_view name, double min, double max) {
    set(field, key(name), meta_.get_number(key(name), min, max));
  }
  void set(const char* field, std::string key, Json value) {
    out_.json[field] = std::move(value);
    out_.keys[field] = std::move(key);
  }

  void vocabulary();
  void llama_like();
  void gemma2();
  void gemma3();
  void gpt2();
  void rope_scaling();
  void rope_factors();
  void reject_uncomputed() const;

  const GgufModel& model_;
  const GgufMetadata& meta_;
  std::string prefix_;
  GgufConfig out_;
};

void ConfigWriter::vocabulary() {
  const GgufTensor* embedding = find_tensor(model_, "token_embd.weight");
  if (!embedding || embedding->shape.size() != 2)
    throw InputError(
        fmt::format("{}: tensor 'token_embd.weight' {}", meta_.file(), embedding ? "is no matrix" : "is missing"));
  out_.json["vocab_size"] = embedding->shape[0];
  out_.json["tie_word_embeddings"] = find_tensor(model_, "output.weight") == nullptr;
  const int64_t last = embedding->shape[0] - 1;
  std::vector<int64_t> ends;
  const auto add = [&](int64_t id) {
    if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  };
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (meta_.has(key)) add(meta_.get_integer(key, 0, last));
  if (meta_.has("tokenizer.ggml.tokens") && meta_.has("tokenizer.ggml.token_type")) {
    const std::vector<std::string_view> texts = meta_.get_texts("tokenizer.ggml.tokens");
    const std::vector<int64_t> types = meta_.get_integers("tokenizer.ggml.token_type", 0, 6);
    constexpr int64_t kControl = 3;
    for (size_t id = 0; id < std::min(texts.size(), types.size()) && static_cast<int64_t>(id) <= last; ++id)
      if (types[id] == kControl &&
          std::find(std::begin(kEndTexts), std::end(kEndTexts), texts[id]) != std::end(kEndTexts))
        add(static_cast<int64_t>(id));
  }
  if (!ends.empty()) set("eos_token_id", "tokenizer.ggml.eos_token_id", ends);
  if (meta_.has("tokenizer.ggml.bos_token_id"))
    set("bos_token_id", "tokenizer.ggml.bos_token_id", meta_.get_integer("tokenizer.ggml.bos_token_id", 0, last));
}

void ConfigWriter::llama_like() {
  integer("hidden_size", "embedding_length", 1, kMaxWidth);
  integer("intermediate_size", "feed_forward_length", 1, kMaxWidth);
  integer("num_hidden_layers", "block_count", 1, kMaxLayers);
  integer("num_attention_heads", "attention.head_count", 1, kMaxHeads);
  if (has("attention.head_count_kv"))
    integer("num_key_value_heads", "attention.head_count_kv", 1, kMaxHeads);
  else
    set("num_key_value_heads", key("attention.head_count"), out_.json["num_attention_heads"]);
  integer("max_position_embeddings", "context_length", 1, kMaxPositions);
  number("rms_norm_eps", "attention.layer_norm_rms_epsilon", 0, 1);
  if (has("rope.freq_base")) number("rope_theta", "rope.freq_base", 1.0001, 1e12);
  if (has("attention.key_length")) integer("head_dim", "attention.key_length", 1, kMaxHeadDim);
  const int64_t hidden = out_.json["hidden_size"], heads = out_.json["num_attention_heads"];
  const int64_t head_dim = out_.json.value("head_dim", hidden / heads);
  if (!out_.json.contains("head_dim") && hidden % heads == 0) set("head_dim", key("attention.head_count"), head_dim);
  if (has("attention.value_length")) meta_.get_integer(key("attention.value_length"), head_dim, head_dim);
  if (has("rope.dimension_count")) meta_.get_integer(key("rope.dimension_count"), head_dim, head_dim);
  out_.json["attention_bias"] = find_tensor(model_, "blk.0.attn_output.bias") != nullptr;
  out_.json["mlp_bias"] = find_tensor(model_, "blk.0.ffn_up.bias") != nullptr;
  if (out_.json["mlp_bias"] == false) out_.json.erase("mlp_bias");
  rope_scaling();
  rope_factors();
}

void ConfigWriter::rope_scaling() {
  const std::string type_key = key("rope.scaling.type");
  // Files from before types were named have only a factor.
  const std::string_view type = meta_.get_text(type_key, has("rope.scale_linear") ? "linear" : "none");
  if (type == "none" || type.empty()) return;
  const std::string factor_key = key(has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear");
  Json scaling = {{"rope_type", type}, {"factor", meta_.get_number(factor_key, 1e-6, 1e6)}};
  if (type == "yarn") {
    if (has("rope.scaling.original_context_length"))
      scaling["original_max_position_embeddings"] =
          meta_.get_integer(key("rope.scaling.original_context_length"), 1, kMaxPositions);
    if (has("rope.scaling.attn_factor")) meta_.get_number(key("rope.scaling.attn_factor"), 1, 1);
    if (has("rope.scaling.yarn_beta_fast"))
      scaling["beta_fast"] = meta_.get_number(key("rope.scaling.yarn_beta_fast"), 1e-3, 1e6);
    if (has("rope.scaling.yarn_beta_slow"))
      scaling["beta_slow"] = meta_.get_number(key("rope.scaling.yarn_beta_slow"), 1e-3, 1e6);
  } else if (type != "linear") {
    meta_.fail(type_key, fmt::format("is {}; none, linear and yarn are computed", in_quotes(type)));
  }
  if (scaling["factor"] == 1.0 && type == "linear") return;
  set("rope_scaling", type_key, std::move(scaling));
}

// rope_freqs.weight: what Llama 3.1's scaling divides each frequency by, computed when the file was made.
void ConfigWriter::rope_factors() {
  size_t file = 0;
  const GgufTensor* tensor = find_tensor(model_, "rope_freqs.weight", &file);
  if (!tensor) return;
  if (tensor->dtype != DType::kF32 || tensor->shape.size() != 1 || tensor->shape[0] > kMaxHeadDim)
    throw InputError(
        fmt::format("{}: tensor 'rope_freqs.weight' is not a list of F32 factors, one for two channels", meta_.file()));
  std::vector<float> factors(static_cast<size_t>(tensor->shape[0]));
  if (!factors.empty())
    std::memcpy(factors.data(), model_.mapped(file).bytes().data() + tensor->begin, factors.size() * sizeof(float));
  set("rope_frequency_factors", "rope_freqs.weight", factors);
}

void ConfigWriter::gemma2() {
  llama_like();
  number("attn_logit_softcapping", "attn_logit_softcapping", 1e-3, 1e6);
  number("final_logit_softcapping", "final_logit_softcapping", 1e-3, 1e6);
  integer("sliding_window", "attention.sliding_window", 1, kMaxPositions);
  // query_pre_attn_scalar is not in the metadata. It is the head's width but for the 27B model, which has 46 layers and
  // takes the hidden size over the heads.
  const int64_t hidden = out_.json["hidden_size"], heads = out_.json["num_attention_heads"],
                layers = out_.json["num_hidden_layers"];
  out_.json["query_pre_attn_scalar"] = layers == 46 ? hidden / heads : out_.json.value("head_dim", int64_t{256});
}

void ConfigWriter::gemma3() {
  llama_like();
  integer("sliding_window", "attention.sliding_window", 1, kMaxPositions);
  if (has("attention.sliding_window_pattern"))
    integer("sliding_window_pattern", "attention.sliding_window_pattern", 1, kMaxLayers);
  if (has("rope.freq_base_swa")) number("rope_local_base_freq", "rope.freq_base_swa", 1.0001, 1e12);
  for (const char* name : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (has(name)) number(name, name, 1e-3, 1e6);
  // As for Gemma 2; here the 27B model has 62 layers.
  const int64_t hidden = out_.json["hidden_size"], heads = out_.json["num_attention_heads"];
  const int64_t layers = out_.json["num_hidden_layers"];
  out_.json["query_pre_attn_scalar"] = layers == 62 ? hidden / heads : out_.json.value("head_dim", int64_t{256});
}

void ConfigWriter::gpt2() {
  integer("n_embd", "embedding_length", 1, kMaxWidth);
  integer("n_layer", "block_count", 1, kMaxLayers);
  integer("n_head", "attention.head_count", 1, kMaxHeads);
  integer("n_positions", "context_length", 1, kMaxPositions);
  integer("n_inner", "feed_forward_length", 1, kMaxWidth);
  number("layer_norm_epsilon", "attention.layer_norm_epsilon", 0, 1);
}

void ConfigWriter::reject_uncomputed() const {
  for (const char* name : {"expert_count", "attention.clamp_kqv", "attention.max_alibi_bias", "attention.scale",
                           "logit_scale", "residual_scale", "embedding_scale"})
    if (has(name) && meta_.get_number(key(name), -1e30, 1e30) != 0)
      meta_.fail(key(name), "is set, but what it asks for is not computed");
  if (!prefix_.starts_with("gemma") && has("attention.sliding_window"))
    meta_.fail(key("attention.sliding_window"), "is set, but windows are computed for Gemma only");
}

GgufConfig ConfigWriter::write() {
  const std::string_view name = meta_.get_text("general.architecture");
  std::string known;
  const Architecture* found = nullptr;
  for (const Architecture& a : kArchitectures) {
    if (a.name == name) found = &a;
    known += (known.empty() ? "" : ", ") + std::string(a.name);
  }
  if (!found)
    meta_.fail("general.architecture",
               fmt::format("is {}, which is not computed; these are: {}", in_quotes(name), known));
  out_.json = Json::object();
  set("architectures", "general.architecture", Json::array({found->architecture}));
  out_.json["model_type"] = found->name;
  reject_uncomputed();
  vocabulary();
  if (name == "gpt2")
    gpt2();
  else if (name == "gemma2")
    gemma2();
  else if (name == "gemma3")
    gemma3();
  else
    llama_like();
  return std::move(out_);
}

}  // namespace

GgufConfig read_gguf_config(const GgufModel& model) { return ConfigWriter(model).write(); }

}  // namespace tinyserve
