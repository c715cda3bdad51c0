// OPT (arXiv 2205.01068): learned positions, layer norms before the blocks, or after them in the 350M model, which also
// keeps its embeddings narrower than its layers.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/config_fields.h"
#include "model/families.h"
#include "model/limits.h"

namespace tinyserve {
namespace {

constexpr float kNormEps = 1e-5f;       // PyTorch's default; configurations do not state it
constexpr int32_t kPositionOffset = 2;  // rows 0 and 1 of the position table belonged to padding

struct OptSettings {
  ModelConfig model;
  ops::Activation activation = ops::Activation::kRelu;
  int32_t embedding_width = 0;
  bool pre_norm = true;
  bool final_norm = true;
  bool norm_weights = true;  ///< false: norms neither scale nor shift
  Bias bias = Bias::kYes;
  bool tied_embeddings = true;
};

class Opt : public Decoder {
 public:
  Opt(const LoadContext& context, const OptSettings& settings);
  void reserve(int64_t max_tokens, int64_t max_logit_rows, int64_t max_seqs, int64_t max_context) override;
  void forward(const Step& step, std::span<const ops::KvLayer> cache, float* logits) override;

 private:
  struct Layer {
    Norm attention_norm;
    AttentionWeights attention;
    Norm mlp_norm;
    Linear up;    ///< [intermediate, hidden]
    Linear down;  ///< [hidden, intermediate]
  };
  Layer load_layer(WeightLoader& weights, const std::string& prefix) const;
  Norm load_norm(WeightLoader& weights, const std::string& name) const;
  void embed(const Step& step);

  OptSettings settings_;
  Table embedding_;    ///< [vocab, embedding_width]
  Table positions_;    ///< [kPositionOffset + max_positions, hidden]
  Linear project_in_;  ///< [hidden, embedding_width]; no weight when they are equally wide
  std::vector<Layer> layers_;
  Norm final_norm_;                     ///< without weights when there is none
  Linear project_out_;                  ///< [embedding_width, hidden], like project_in_
  Linear lm_head_;                      ///< [vocab, embedding_width]
  std::vector<int32_t> position_rows_;  ///< [max_tokens], rows of positions_
};

Opt::Opt(const LoadContext& context, const OptSettings& settings)
    : Decoder(context, settings.model, {.up = std::max(settings.model.intermediate_size, settings.embedding_width)}),
      settings_(settings) {
  const ModelConfig& c = config_;
  const int64_t width = settings_.embedding_width;
  WeightLoader weights(checkpoint_, ops_, context.options);
  const std::string prefix = weights.find_prefix({"model.decoder.", "decoder.", ""}, "embed_tokens.weight");
  embedding_ = weights.table(prefix + "embed_tokens.weight", c.vocab_size, width);
  positions_ = weights.table(prefix + "embed_positions.weight", kPositionOffset + c.max_positions, c.hidden_size);
  if (width != c.hidden_size) project_in_ = weights.linear(prefix + "project_in", c.hidden_size, width, Bias::kNo);
  for (int32_t l = 0; l < c.num_layers; ++l)
    layers_.push_back(load_layer(weights, fmt::format("{}layers.{}.", prefix, l)));
  if (settings_.final_norm) final_norm_ = load_norm(weights, prefix + "final_layer_norm");
  if (width != c.hidden_size) project_out_ = weights.linear(prefix + "project_out", width, c.hidden_size, Bias::kNo);
  lm_head_ = weights.lm_head(prefix + "embed_tokens.weight", c.vocab_size, width, settings_.tied_embeddings);
  finish_loading(weights, layers_);
}

Opt::Layer Opt::load_layer(WeightLoader& weights, const std::string& prefix) const {
  const int64_t hidden = config_.hidden_size, intermediate = config_.intermediate_size;
  const std::string attention = prefix + "self_attn.";
  Layer layer;
  layer.attention_norm = load_norm(weights, prefix + "self_attn_layer_norm");
  layer.attention.qkv = weights.fused_linear(
      {{attention + "q_proj", hidden}, {attention + "k_proj", hidden}, {attention + "v_proj", hidden}}, hidden,
      settings_.bias);
  layer.attention.out = weights.linear(attention + "out_proj", hidden, hidden, settings_.bias);
  layer.attention.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  layer.mlp_norm = load_norm(weights, prefix + "final_layer_norm");
  layer.up = weights.linear(prefix + "fc1", intermediate, hidden, settings_.bias);
  layer.down = weights.linear(prefix + "fc2", hidden, intermediate, settings_.bias);
  return layer;
}

Norm Opt::load_norm(WeightLoader& weights, const std::string& name) const {
  if (settings_.norm_weights) return weights.norm(name, config_.hidden_size, Bias::kYes);
  return weights.unit_norm(config_.hidden_size);
}

void Opt::reserve(int64_t max_tokens, int64_t max_logit_rows, int64_t max_seqs, int64_t max_context) {
  Decoder::reserve(max_tokens, max_logit_rows, max_seqs, max_context);
  position_rows_.resize(static_cast<size_t>(max_tokens));
}

void Opt::embed(const Step& step) {
  if (project_in_.weight) {
    ops_.embed(embedding_.view, step.token_ids, 1.0f, false, up_, settings_.embedding_width);
    linear(project_in_, up_, x_);
  } else {
    ops_.embed(embedding_.view, step.token_ids, 1.0f, false, x_, config_.hidden_size);
  }
  const size_t n = step.token_ids.size();
  for (size_t t = 0; t < n; ++t) position_rows_[t] = step.layout.positions[t] + kPositionOffset;
  ops_.embed(positions_.view, {position_rows_.data(), n}, 1.0f, true, x_, config_.hidden_size);
}

void Opt::forward(const Step& step, std::span<const ops::KvLayer> cache, float* logits) {
  const bool pre_norm = settings_.pre_norm;
  const int64_t intermediate = config_.intermediate_size;
  begin(step, cache);
  embed(step);
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    if (pre_norm) layer_norm(layer.attention_norm, kNormEps, x_, h_);
    self_attention(layer.attention, pre_norm ? h_ : x_, cache[l], is_last(l), nullptr);
    if (rows() == 0) return;
    linear(layer.attention.out, attended_, x_, true);
    if (!pre_norm) layer_norm(layer.attention_norm, kNormEps, x_, x_);

    if (pre_norm) layer_norm(layer.mlp_norm, kNormEps, x_, h_);
    linear(layer.up, pre_norm ? h_ : x_, up_);
    ops_.activation(settings_.activation, up_, intermediate, rows(), intermediate);
    linear(layer.down, up_, x_, true);
    if (!pre_norm) layer_norm(layer.mlp_norm, kNormEps, x_, x_);
  }
  if (settings_.final_norm) layer_norm(final_norm_, kNormEps, x_, x_);
  if (project_out_.weight) linear(project_out_, x_, up_);
  linear(lm_head_, project_out_.weight ? up_ : x_, logits);
}

}  // namespace

std::unique_ptr<Model> load_opt(const LoadContext& context) {
  const ConfigReader& config = context.config;
  OptSettings s{.model = context.model};
  ModelConfig& m = s.model;
  m.hidden_size = config.integer("hidden_size", 1, kMaxWidth);
  m.intermediate_size = config.integer("ffn_dim", 1, kMaxWidth);
  m.num_layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  m.num_heads = m.num_kv_heads = config.integer("num_attention_heads", 1, kMaxHeads);
  m.max_positions = config.integer("max_position_embeddings", 1, kMaxPositions);
  m.head_dim = divide_heads(config, "num_attention_heads", m.hidden_size, m.num_heads);
  s.embedding_width = config.integer("word_embed_proj_dim", 1, kMaxWidth, m.hidden_size);
  s.activation = read_activation(config, "activation_function", "relu");
  s.pre_norm = config.flag("do_layer_norm_before", true);
  s.final_norm = s.pre_norm && !config.flag("_remove_final_layer_norm", false);
  s.norm_weights = config.flag("layer_norm_elementwise_affine", true);
  s.bias = Bias{config.flag("enable_bias", true)};
  s.tied_embeddings = config.flag("tie_word_embeddings", true);
  return std::make_unique<Opt>(context, s);
}

}  // namespace tinyserve
