// Gemma 2 (arXiv 2408.00118): scaled embeddings, RMS norms before and after both blocks, windows in every other layer,
// soft caps on attention scores and logits. Gemma 3 (arXiv 2503.19786): norms of q and k in place of the caps, five
// layers with windows to one without, and a rotation of their own for the layers with windows.

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <tuple>

#include "model/config_fields.h"
#include "model/families.h"
#include "model/limits.h"

namespace tinyserve {
namespace {

struct GemmaSettings {
  ModelConfig model;
  Rope rope;
  std::optional<Rope> window_rope;  ///< of the layers with windows; none: `rope`, too
  bool qk_norm = false;
  ops::Activation activation = ops::Activation::kGeluTanh;
  float norm_eps = 0;
  float embedding_scale = 0;
  float attention_scale = 0;
  float attention_softcap = 0;  ///< 0: none
  float logit_softcap = 0;      ///< 0: none
  Bias attention_bias = Bias::kNo;
  bool tied_embeddings = true;
  std::vector<int32_t> windows;  ///< per layer, 0: all tokens
};

class Gemma : public Decoder {
 public:
  Gemma(const LoadContext& context, const GemmaSettings& settings);
  const Rope* rope() const override { return &settings_.rope; }
  void reserve(int64_t max_tokens, int64_t max_logit_rows, int64_t max_seqs, int64_t max_context) override;
  void forward(const Step& step, std::span<const ops::KvLayer> cache, float* logits) override;

 private:
  struct Layer {
    Norm before_attention, after_attention;
    AttentionWeights attention;
    Norm before_mlp, after_mlp;
    Linear gate_up;  ///< [2 * intermediate, hidden]
    Linear down;     ///< [hidden, intermediate]
  };
  Layer load_layer(WeightLoader& weights, const std::string& prefix, size_t index) const;

  GemmaSettings settings_;
  Table embedding_;  ///< [vocab, hidden]
  std::vector<Layer> layers_;
  Norm final_norm_;
  Linear lm_head_;
  RopeTable rope_, window_rope_;
};

Gemma::Gemma(const LoadContext& context, const GemmaSettings& settings)
    : Decoder(context, settings.model,
              {.up = 2 * int64_t{settings.model.intermediate_size}, .gated = settings.model.intermediate_size}),
      settings_(settings) {
  const ModelConfig& c = config_;
  WeightLoader weights(checkpoint_, ops_, context.options);
  const std::string prefix = weights.find_prefix({"model.", ""}, "embed_tokens.weight");
  embedding_ = weights.table(prefix + "embed_tokens.weight", c.vocab_size, c.hidden_size);
  for (size_t l = 0; l < static_cast<size_t>(c.num_layers); ++l)
    layers_.push_back(load_layer(weights, fmt::format("{}layers.{}.", prefix, l), l));
  final_norm_ = weights.norm_plus_one(prefix + "norm", c.hidden_size);
  lm_head_ = weights.lm_head(prefix + "embed_tokens.weight", c.vocab_size, c.hidden_size, settings_.tied_embeddings);
  finish_loading(weights, layers_);
}

Gemma::Layer Gemma::load_layer(WeightLoader& weights, const std::string& prefix, size_t index) const {
  const GemmaSettings& s = settings_;
  const int64_t hidden = config_.hidden_size, intermediate = config_.intermediate_size, head_dim = config_.head_dim;
  const int64_t q = config_.num_heads * head_dim, kv = config_.num_kv_heads * head_dim;
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  Layer layer;
  layer.before_attention = weights.norm_plus_one(prefix + "input_layernorm", hidden);
  layer.attention.qkv = weights.fused_linear(
      {{attention + "q_proj", q}, {attention + "k_proj", kv}, {attention + "v_proj", kv}}, hidden, s.attention_bias);
  if (s.qk_norm) {
    layer.attention.q_norm = weights.norm_plus_one(attention + "q_norm", head_dim).weight;
    layer.attention.k_norm = weights.norm_plus_one(attention + "k_norm", head_dim).weight;
    layer.attention.norm_eps = s.norm_eps;
  }
  layer.attention.out = weights.linear(attention + "o_proj", hidden, q, s.attention_bias);
  layer.attention.scale = s.attention_scale;
  layer.attention.window = s.windows[index];
  layer.attention.softcap = s.attention_softcap;
  layer.after_attention = weights.norm_plus_one(prefix + "post_attention_layernorm", hidden);
  layer.before_mlp = weights.norm_plus_one(prefix + "pre_feedforward_layernorm", hidden);
  layer.gate_up =
      weights.fused_linear({{mlp + "gate_proj", intermediate}, {mlp + "up_proj", intermediate}}, hidden, Bias::kNo);
  layer.down = weights.linear(mlp + "down_proj", hidden, intermediate, Bias::kNo);
  layer.after_mlp = weights.norm_plus_one(prefix + "post_feedforward_layernorm", hidden);
  return layer;
}

void Gemma::reserve(int64_t max_tokens, int64_t max_logit_rows, int64_t max_seqs, int64_t max_context) {
  Decoder::reserve(max_tokens, max_logit_rows, max_seqs, max_context);
  rope_.reserve(settings_.rope, max_tokens, ops_);
  if (settings_.window_rope) window_rope_.reserve(*settings_.window_rope, max_tokens, ops_);
}

void Gemma::forward(const Step& step, std::span<const ops::KvLayer> cache, float* logits) {
  const int64_t hidden = config_.hidden_size, intermediate = config_.intermediate_size, vocab = config_.vocab_size;
  const float eps = settings_.norm_eps;
  begin(step, cache);
  ops_.embed(embedding_.view, step.token_ids, settings_.embedding_scale, false, x_, hidden);
  rope_.compute(settings_.rope, step.layout.positions, rows(), ops_);
  if (settings_.window_rope) window_rope_.compute(*settings_.window_rope, step.layout.positions, rows(), ops_);
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    rms_norm(layer.before_attention, eps, x_, h_);
    const bool own_rope = settings_.window_rope && layer.attention.window > 0;
    self_attention(layer.attention, h_, cache[l], is_last(l), own_rope ? &window_rope_ : &rope_);
    if (rows() == 0) return;
    linear(layer.attention.out, attended_, h_);
    rms_norm(layer.after_attention, eps, h_, h_);
    ops_.add(x_, hidden, h_, hidden, rows(), hidden);

    rms_norm(layer.before_mlp, eps, x_, h_);
    linear(layer.gate_up, h_, up_);
    ops_.gated_activation(settings_.activation, up_, 2 * intermediate, rows(), intermediate, gated_, intermediate);
    linear(layer.down, gated_, h_);
    rms_norm(layer.after_mlp, eps, h_, h_);
    ops_.add(x_, hidden, h_, hidden, rows(), hidden);
  }
  rms_norm(final_norm_, eps, x_, h_);
  linear(lm_head_, h_, logits);
  if (settings_.logit_softcap > 0) ops_.softcap(settings_.logit_softcap, logits, vocab, rows(), vocab);
}

// null: none; missing: transformers' default.
float read_softcap(const ConfigReader& config, const char* field, double missing) {
  return static_cast<float>(config.number(field, 1e-3, 1e6, config.mentions(field) ? 0 : missing));
}

// What Gemma 2 and 3 have in common; rope, caps and windows are left to them.
GemmaSettings read_settings(const LoadContext& context) {
  const ConfigReader& config = context.config;
  GemmaSettings s{.model = context.model};
  ModelConfig& m = s.model;
  m.hidden_size = config.integer("hidden_size", 1, kMaxWidth);
  m.intermediate_size = config.integer("intermediate_size", 1, kMaxWidth);
  m.num_layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  m.num_heads = config.integer("num_attention_heads", 1, kMaxHeads);
  m.num_kv_heads = config.integer("num_key_value_heads", 1, kMaxHeads);
  m.head_dim = read_head_dim(config, m.hidden_size, m.num_heads, 256);
  check_heads(config, "num_key_value_heads", m);
  s.activation = read_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  s.norm_eps = static_cast<float>(config.number("rms_norm_eps", 0, 1, 1e-6));
  // transformers keeps the embeddings' scale in the model's dtype: sqrt(3584) is 59.75 in BF16.
  s.embedding_scale = std::sqrt(static_cast<float>(m.hidden_size));
  if (context.options.dtype == DType::kBF16) s.embedding_scale = to_float(to_bfloat16(s.embedding_scale));
  s.attention_scale = static_cast<float>(1 / std::sqrt(config.number("query_pre_attn_scalar", 1e-3, 1e6, 256)));
  s.attention_bias = Bias{config.flag("attention_bias", false)};
  s.tied_embeddings = config.flag("tie_word_embeddings", true);
  return s;
}

int32_t read_window(const ConfigReader& config) {
  return config.mentions("sliding_window") ? config.integer("sliding_window", 1, kMaxPositions) : 4096;
}

}  // namespace

std::unique_ptr<Model> load_gemma2(const LoadContext& context) {
  const ConfigReader& config = context.config;
  GemmaSettings s = read_settings(context);
  s.rope = read_rope(config, s.model.head_dim, config.integer("max_position_embeddings", 1, kMaxPositions));
  s.model.max_positions = s.rope.max_positions;
  s.attention_softcap = read_softcap(config, "attn_logit_softcapping", 50);
  s.logit_softcap = read_softcap(config, "final_logit_softcapping", 30);
  s.windows = read_windows(
      config, s.model.num_layers, read_window(config), [](int32_t layer, int32_t) { return layer % 2 == 0; }, 0);
  return std::make_unique<Gemma>(context, s);
}

std::unique_ptr<Model> load_gemma3(const LoadContext& context) {
  const ConfigReader& config = context.config;
  GemmaSettings s = read_settings(context);
  s.model.max_positions = config.integer("max_position_embeddings", 1, kMaxPositions);  // scaling is part of it
  std::tie(s.rope, s.window_rope) = read_rope_pair(config, s.model.head_dim, s.model.max_positions);
  s.qk_norm = true;
  s.attention_softcap = read_softcap(config, "attn_logit_softcapping", 0);
  s.logit_softcap = read_softcap(config, "final_logit_softcapping", 0);
  s.windows = read_windows(
      config, s.model.num_layers, read_window(config),
      [](int32_t layer, int32_t pattern) { return (layer + 1) % pattern != 0; },
      config.integer("sliding_window_pattern", 1, kMaxLayers, 6));
  return std::make_unique<Gemma>(context, s);
}

}  // namespace tinyserve
