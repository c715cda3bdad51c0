#include "model/llama_decoder.h"

#include <fmt/format.h>

#include <cmath>

#include "model/config_fields.h"
#include "model/limits.h"

namespace tinyserve {
namespace {

class LlamaDecoder : public Decoder {
 public:
  LlamaDecoder(const LoadContext& context, const LlamaSettings& settings);
  const Rope* rope() const override { return &settings_.rope; }
  void reserve(int64_t max_tokens, int64_t max_logit_rows, int64_t max_seqs, int64_t max_context) override;
  void forward(const Step& step, std::span<const ops::KvLayer> cache, float* logits) override;

 private:
  struct Layer {
    Norm attention_norm;
    AttentionWeights attention;
    Norm mlp_norm;
    Linear gate_up;  ///< [2 * intermediate, hidden]
    Linear down;     ///< [hidden, intermediate]
  };
  Layer load_layer(WeightLoader& weights, const std::string& prefix, size_t index) const;

  LlamaSettings settings_;
  Table embedding_;  ///< [vocab, hidden]
  std::vector<Layer> layers_;
  Norm final_norm_;
  Linear lm_head_;
  RopeTable rope_;
};

LlamaDecoder::LlamaDecoder(const LoadContext& context, const LlamaSettings& settings)
    : Decoder(context, settings.model,
              {.up = 2 * int64_t{settings.model.intermediate_size}, .gated = settings.model.intermediate_size}),
      settings_(settings) {
  const ModelConfig& c = config_;
  WeightLoader weights(checkpoint_, ops_, context.options);
  const std::string prefix = weights.find_prefix({"model.", ""}, "embed_tokens.weight");
  embedding_ = weights.table(prefix + "embed_tokens.weight", c.vocab_size, c.hidden_size);
  for (size_t l = 0; l < static_cast<size_t>(c.num_layers); ++l)
    layers_.push_back(load_layer(weights, fmt::format("{}layers.{}.", prefix, l), l));
  final_norm_ = weights.norm(prefix + "norm", c.hidden_size, Bias::kNo);
  lm_head_ = weights.lm_head(prefix + "embed_tokens.weight", c.vocab_size, c.hidden_size, settings_.tied_embeddings);
  finish_loading(weights, layers_);
}

LlamaDecoder::Layer LlamaDecoder::load_layer(WeightLoader& weights, const std::string& prefix, size_t index) const {
  const LlamaSettings& s = settings_;
  const int64_t hidden = config_.hidden_size, intermediate = config_.intermediate_size, head_dim = config_.head_dim;
  const int64_t q = config_.num_heads * head_dim, kv = config_.num_kv_heads * head_dim;
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  Layer layer;
  layer.attention_norm = weights.norm(prefix + "input_layernorm", hidden, Bias::kNo);
  layer.attention.qkv = weights.fused_linear(
      {{attention + "q_proj", q}, {attention + "k_proj", kv}, {attention + "v_proj", kv}}, hidden, s.qkv_bias);
  if (s.qk_norm) {
    layer.attention.q_norm = weights.norm(attention + "q_norm", head_dim, Bias::kNo).weight;
    layer.attention.k_norm = weights.norm(attention + "k_norm", head_dim, Bias::kNo).weight;
    layer.attention.norm_eps = s.norm_eps;
  }
  layer.attention.out = weights.linear(attention + "o_proj", hidden, q, s.out_bias);
  layer.attention.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  layer.attention.window = s.windows[index];
  layer.mlp_norm = weights.norm(prefix + "post_attention_layernorm", hidden, Bias::kNo);
  layer.gate_up =
      weights.fused_linear({{mlp + "gate_proj", intermediate}, {mlp + "up_proj", intermediate}}, hidden, s.mlp_bias);
  layer.down = weights.linear(mlp + "down_proj", hidden, intermediate, s.mlp_bias);
  return layer;
}

void LlamaDecoder::reserve(int64_t max_tokens, int64_t max_logit_rows, int64_t max_seqs, int64_t max_context) {
  Decoder::reserve(max_tokens, max_logit_rows, max_seqs, max_context);
  rope_.reserve(settings_.rope, max_tokens, ops_);
}

void LlamaDecoder::forward(const Step& step, std::span<const ops::KvLayer> cache, float* logits) {
  const int64_t hidden = config_.hidden_size, intermediate = config_.intermediate_size;
  begin(step, cache);
  ops_.embed(embedding_.view, step.token_ids, 1.0f, false, x_, hidden);
  rope_.compute(settings_.rope, step.layout.positions, rows(), ops_);
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    rms_norm(layer.attention_norm, settings_.norm_eps, x_, h_);
    self_attention(layer.attention, h_, cache[l], is_last(l), &rope_);
    if (rows() == 0) return;
    linear(layer.attention.out, attended_, x_, true);

    rms_norm(layer.mlp_norm, settings_.norm_eps, x_, h_);
    linear(layer.gate_up, h_, up_);
    ops_.gated_activation(settings_.activation, up_, 2 * intermediate, rows(), intermediate, gated_, intermediate);
    linear(layer.down, gated_, x_, true);
  }
  rms_norm(final_norm_, settings_.norm_eps, x_, h_);
  linear(lm_head_, h_, logits);
}

}  // namespace

LlamaSettings read_llama_settings(const LoadContext& context, int32_t default_head_dim) {
  const ConfigReader& config = context.config;
  LlamaSettings s{.model = context.model};
  ModelConfig& m = s.model;
  m.hidden_size = config.integer("hidden_size", 1, kMaxWidth);
  m.intermediate_size = config.integer("intermediate_size", 1, kMaxWidth);
  m.num_layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  m.num_heads = config.integer("num_attention_heads", 1, kMaxHeads);
  m.num_kv_heads = config.integer("num_key_value_heads", 1, kMaxHeads, m.num_heads);
  m.head_dim = read_head_dim(config, m.hidden_size, m.num_heads, default_head_dim);
  check_heads(config, "num_key_value_heads", m);
  s.rope = read_rope(config, m.head_dim, config.integer("max_position_embeddings", 1, kMaxPositions));
  m.max_positions = s.rope.max_positions;
  s.activation = read_activation(config, "hidden_act", "silu");
  s.norm_eps = static_cast<float>(config.number("rms_norm_eps", 0, 1, 1e-6));
  s.tied_embeddings = config.flag("tie_word_embeddings", false);
  s.windows.assign(static_cast<size_t>(m.num_layers), 0);
  for (const char* field : {"attn_logit_softcapping", "final_logit_softcapping"})
    config.reject_unless_neutral(field, "soft caps are computed for gemma2 only");
  return s;
}

std::unique_ptr<Model> make_llama_decoder(const LoadContext& context, const LlamaSettings& settings) {
  return std::make_unique<LlamaDecoder>(context, settings);
}

}  // namespace tinyserve
