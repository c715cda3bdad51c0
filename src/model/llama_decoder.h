#pragma once
// The decoder that Llama (arXiv 2302.13971), Mistral (2310.06825), Qwen2 (2407.10671) and Qwen3 (2505.09388) share:
// pre-norm with RMS norms, rotary attention over grouped KV heads, a gated MLP. They differ in the settings below.

#include <memory>
#include <vector>

#include "model/decoder.h"

namespace tinyserve {

struct LlamaSettings {
  ModelConfig model;
  Rope rope;
  ops::Activation activation = ops::Activation::kSilu;
  float norm_eps = 0;
  bool tied_embeddings = false;
  Bias qkv_bias = Bias::kNo;
  Bias out_bias = Bias::kNo;
  Bias mlp_bias = Bias::kNo;
  bool qk_norm = false;
  std::vector<int32_t> windows;  ///< per layer, 0: all tokens
};

/// What the families' configurations have in common. The rest keeps its default, with full attention in every layer.
/// default_head_dim: what a missing head_dim means; 0: hidden_size / heads.
LlamaSettings read_llama_settings(const LoadContext& context, int32_t default_head_dim = 0);

std::unique_ptr<Model> make_llama_decoder(const LoadContext& context, const LlamaSettings& settings);

}  // namespace tinyserve
