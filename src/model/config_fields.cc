#include "model/config_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "model/in_quotes.h"
#include "model/limits.h"

namespace tinyserve {
namespace {

struct NamedActivation {
  std::string_view name;
  ops::Activation activation;
};
constexpr NamedActivation kActivations[] = {
    {"silu", ops::Activation::kSilu},
    {"swish", ops::Activation::kSilu},
    {"gelu", ops::Activation::kGelu},
    {"gelu_new", ops::Activation::kGeluTanh},
    {"gelu_pytorch_tanh", ops::Activation::kGeluTanh},
    {"gelu_fast", ops::Activation::kGeluTanh},
    {"relu", ops::Activation::kRelu},
};

struct UncomputedField {
  std::string_view field;
  std::string_view why;
  double neutral = 0;
};
constexpr UncomputedField kUncomputed[] = {
    {"quantization_config",
     "quantised checkpoints are not read; take the original one (--weights int8 quantises at load)"},
    {"compression_config", "compressed checkpoints are not read; take the original one"},
    {"is_encoder_decoder", "only decoders are computed"},
    {"add_cross_attention", "cross attention is not computed"},
    {"use_bidirectional_attention", "only causal attention is computed"},
    {"attention_sinks", "attention sinks are not computed"},
    {"attention_sink", "attention sinks are not computed"},
    {"use_attention_sinks", "attention sinks are not computed"},
    {"num_experts", "mixtures of experts are not computed"},
    {"num_local_experts", "mixtures of experts are not computed"},
    {"n_routed_experts", "mixtures of experts are not computed"},
    {"clip_qkv", "clipping of q, k and v is not computed"},
    {"alibi", "ALiBi is not computed"},
    {"use_alibi", "ALiBi is not computed"},
    {"use_parallel_residual", "parallel residuals are not computed"},
    {"attention_chunk_size", "chunked attention is not computed"},
    {"no_rope_layers", "layers without rotation are not computed"},
    {"logit_scale", "scaled logits are not computed", 1},
    {"logits_scaling", "scaled logits are not computed", 1},
    {"embedding_multiplier", "scaled embeddings are not computed", 1},
    {"residual_multiplier", "scaled residuals are not computed", 1},
    {"attention_multiplier", "a scale of attention other than 1/sqrt(head_dim) is not computed"},
};

}  // namespace

void read_vocabulary(const ConfigReader& config, const std::filesystem::path& folder, ModelConfig& model) {
  model.vocab_size = config.integer("vocab_size", 1, kMaxVocab);
  const int32_t last = model.vocab_size - 1;
  model.eos_token_ids = config.integers("eos_token_id", 0, last);
  model.bos_token_id = config.integer("bos_token_id", 0, last, -1);
  const std::filesystem::path path = folder / "generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return;
  const ConfigReader generation(path);
  if (generation.has("eos_token_id")) model.eos_token_ids = generation.integers("eos_token_id", 0, last);
  model.bos_token_id = generation.integer("bos_token_id", 0, last, model.bos_token_id);
}

ops::Activation read_activation(const ConfigReader& config, std::string_view field, std::string_view fallback) {
  const std::string name = config.text(field, fallback);
  std::string names;
  for (const NamedActivation& known : kActivations) {
    if (known.name == name) return known.activation;
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  }
  config.fail(field, fmt::format("is {}, which is not computed; these are: {}", in_quotes(name), names));
}

int32_t divide_heads(const ConfigReader& config, std::string_view heads_field, int32_t hidden_size, int32_t num_heads) {
  if (hidden_size % num_heads != 0)
    config.fail(heads_field, fmt::format("is {}, which does not divide the hidden size of {}", num_heads, hidden_size));
  if (hidden_size / num_heads > kMaxHeadDim)
    config.fail(heads_field, fmt::format("is {}, which makes heads wider than {}", num_heads, kMaxHeadDim));
  return hidden_size / num_heads;
}

int32_t read_head_dim(const ConfigReader& config, int32_t hidden_size, int32_t num_heads, int32_t fallback) {
  if (config.has("head_dim")) return config.integer("head_dim", 1, kMaxHeadDim);
  if (fallback > 0) return fallback;
  return divide_heads(config, "num_attention_heads", hidden_size, num_heads);
}

void check_heads(const ConfigReader& config, std::string_view kv_heads_field, const ModelConfig& model) {
  if (int64_t{model.num_heads} * model.head_dim > kMaxWidth)
    config.fail("head_dim", fmt::format("is {}, too wide for {} heads", model.head_dim, model.num_heads));
  if (model.num_heads % model.num_kv_heads != 0)
    config.fail(kv_heads_field,
                fmt::format("is {}, which does not divide the {} query heads", model.num_kv_heads, model.num_heads));
}

std::vector<int32_t> read_windows(const ConfigReader& config, int32_t num_layers, int32_t window,
                                  bool (*is_sliding)(int32_t, int32_t), int32_t first_sliding_layer) {
  std::vector<int32_t> windows(static_cast<size_t>(num_layers), 0);
  const std::vector<std::string> types = config.texts("layer_types");
  if (!types.empty() && types.size() != windows.size())
    config.fail("layer_types", fmt::format("names {} layers, but there are {}", types.size(), num_layers));
  for (int32_t l = 0; l < num_layers; ++l) {
    const auto i = static_cast<size_t>(l);
    bool sliding = false;
    if (types.empty())
      sliding = window > 0 && is_sliding(l, first_sliding_layer);
    else if (types[i] == "sliding_attention")
      sliding = true;
    else if (types[i] != "full_attention")
      config.fail("layer_types",
                  fmt::format("holds {}; full_attention and sliding_attention are computed", in_quotes(types[i])));
    if (sliding && window == 0)
      config.fail("layer_types", "asks for sliding_attention, but there is no sliding_window");
    if (sliding) windows[i] = window;
  }
  return windows;
}

void reject_uncomputed_fields(const ConfigReader& config) {
  for (const UncomputedField& u : kUncomputed) config.reject_unless_neutral(u.field, u.why, u.neutral);
}

}  // namespace tinyserve
