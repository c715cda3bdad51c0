// GPT-2 (Radford et al. 2019): learned positions, pre-norm with layer norms, biases everywhere, weights stored as
// Conv1D ([in, out]).

#include <fmt/format.h>

#include <cmath>

#include "model/config_fields.h"
#include "model/families.h"
#include "model/limits.h"

namespace tinyserve {
namespace {

struct Gpt2Settings {
  ModelConfig model;
  ops::Activation activation = ops::Activation::kGeluTanh;
  float norm_eps = 0;
  bool tied_embeddings = true;
  bool scale_by_head_dim = true;
  bool scale_by_layer = false;  ///< layer l's scores are divided by l + 1 as well
};

class Gpt2 : public Decoder {
 public:
  Gpt2(const LoadContext& context, const Gpt2Settings& settings);
  void forward(const Step& step, std::span<const ops::KvLayer> cache, float* logits) override;

 private:
  struct Layer {
    Norm attention_norm;
    AttentionWeights attention;
    Norm mlp_norm;
    Linear up;    ///< [intermediate, hidden]
    Linear down;  ///< [hidden, intermediate]
  };
  Layer load_layer(WeightLoader& weights, const std::string& prefix, size_t index) const;

  Gpt2Settings settings_;
  Table embedding_;  ///< [vocab, hidden]
  Table positions_;  ///< [max_positions, hidden]
  std::vector<Layer> layers_;
  Norm final_norm_;
  Linear lm_head_;
};

Gpt2::Gpt2(const LoadContext& context, const Gpt2Settings& settings)
    : Decoder(context, settings.model, {.up = settings.model.intermediate_size}), settings_(settings) {
  const ModelConfig& c = config_;
  WeightLoader weights(checkpoint_, ops_, context.options);
  weights.ignore_suffix(".attn.bias");  // causal masks that early releases saved
  weights.ignore_suffix(".attn.masked_bias");
  const std::string prefix = weights.find_prefix({"transformer.", ""}, "wte.weight");
  embedding_ = weights.table(prefix + "wte.weight", c.vocab_size, c.hidden_size);
  positions_ = weights.table(prefix + "wpe.weight", c.max_positions, c.hidden_size);
  for (size_t l = 0; l < static_cast<size_t>(c.num_layers); ++l)
    layers_.push_back(load_layer(weights, fmt::format("{}h.{}.", prefix, l), l));
  final_norm_ = weights.norm(prefix + "ln_f", c.hidden_size, Bias::kYes);
  lm_head_ = weights.lm_head(prefix + "wte.weight", c.vocab_size, c.hidden_size, settings_.tied_embeddings);
  finish_loading(weights, layers_);
}

Gpt2::Layer Gpt2::load_layer(WeightLoader& weights, const std::string& prefix, size_t index) const {
  const int64_t hidden = config_.hidden_size, intermediate = config_.intermediate_size;
  Layer layer;
  layer.attention_norm = weights.norm(prefix + "ln_1", hidden, Bias::kYes);
  layer.attention.qkv = weights.linear(prefix + "attn.c_attn", 3 * hidden, hidden, Bias::kYes, Layout::kInOut);
  layer.attention.out = weights.linear(prefix + "attn.c_proj", hidden, hidden, Bias::kYes, Layout::kInOut);
  layer.attention.scale = settings_.scale_by_head_dim ? 1.0f / std::sqrt(static_cast<float>(config_.head_dim)) : 1.0f;
  if (settings_.scale_by_layer) layer.attention.scale /= static_cast<float>(index + 1);
  layer.mlp_norm = weights.norm(prefix + "ln_2", hidden, Bias::kYes);
  layer.up = weights.linear(prefix + "mlp.c_fc", intermediate, hidden, Bias::kYes, Layout::kInOut);
  layer.down = weights.linear(prefix + "mlp.c_proj", hidden, intermediate, Bias::kYes, Layout::kInOut);
  return layer;
}

void Gpt2::forward(const Step& step, std::span<const ops::KvLayer> cache, float* logits) {
  const int64_t hidden = config_.hidden_size, intermediate = config_.intermediate_size;
  const std::span<const int32_t> positions(step.layout.positions, step.token_ids.size());
  begin(step, cache);
  ops_.embed(embedding_.view, step.token_ids, 1.0f, false, x_, hidden);
  ops_.embed(positions_.view, positions, 1.0f, true, x_, hidden);
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    layer_norm(layer.attention_norm, settings_.norm_eps, x_, h_);
    self_attention(layer.attention, h_, cache[l], is_last(l), nullptr);
    if (rows() == 0) return;
    linear(layer.attention.out, attended_, x_, true);

    layer_norm(layer.mlp_norm, settings_.norm_eps, x_, h_);
    linear(layer.up, h_, up_);
    ops_.activation(settings_.activation, up_, intermediate, rows(), intermediate);
    linear(layer.down, up_, x_, true);
  }
  layer_norm(final_norm_, settings_.norm_eps, x_, h_);
  linear(lm_head_, h_, logits);
}

}  // namespace

std::unique_ptr<Model> load_gpt2(const LoadContext& context) {
  const ConfigReader& config = context.config;
  Gpt2Settings s{.model = context.model};
  ModelConfig& m = s.model;
  m.hidden_size = config.integer("n_embd", 1, kMaxWidth);
  m.num_layers = config.integer("n_layer", 1, kMaxLayers);
  m.num_heads = m.num_kv_heads = config.integer("n_head", 1, kMaxHeads);
  m.max_positions = config.integer("n_positions", 1, kMaxPositions);
  const int32_t usual = m.hidden_size <= kMaxWidth / 4 ? 4 * m.hidden_size : kMaxWidth;
  m.intermediate_size = config.integer("n_inner", 1, kMaxWidth, usual);
  m.head_dim = divide_heads(config, "n_head", m.hidden_size, m.num_heads);
  s.activation = read_activation(config, "activation_function", "gelu_new");
  s.norm_eps = static_cast<float>(config.number("layer_norm_epsilon", 0, 1, 1e-5));
  s.tied_embeddings = config.flag("tie_word_embeddings", true);
  s.scale_by_head_dim = config.flag("scale_attn_weights", true);
  s.scale_by_layer = config.flag("scale_attn_by_inverse_layer_idx", false);
  return std::make_unique<Gpt2>(context, s);
}

}  // namespace tinyserve
