#include "model/gguf/gguf_names.h"

#include <fmt/format.h>

#include <span>

#include "model/limits.h"

namespace tinyserve {
namespace {

struct Renamed {
  std::string_view gguf, checkpoint;
};
constexpr Renamed kLlamaModel[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr Renamed kLlamaLayer[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};
constexpr Renamed kGemmaLayer[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};
constexpr Renamed kGpt2Model[] = {{"token_embd", "transformer.wte"},
                                  {"position_embd", "transformer.wpe"},
                                  {"output_norm", "transformer.ln_f"},
                                  {"output", "lm_head"}};
constexpr Renamed kGpt2Layer[] = {{"attn_norm", "ln_1"}, {"attn_qkv", "attn.c_attn"}, {"attn_output", "attn.c_proj"},
                                  {"ffn_norm", "ln_2"},  {"ffn_up", "mlp.c_fc"},      {"ffn_down", "mlp.c_proj"}};

}  // namespace

std::string checkpoint_name(std::string_view architecture, std::string_view tensor) {
  const bool gpt2 = architecture == "gpt2";
  std::span<const Renamed> names = gpt2 ? std::span<const Renamed>(kGpt2Model) : kLlamaModel;
  std::string prefix;
  std::string_view rest = tensor;
  if (rest.starts_with("blk.")) {
    rest.remove_prefix(4);
    const size_t dot = rest.find('.');
    if (dot == std::string_view::npos) return std::string(tensor);
    prefix = fmt::format("{}.{}.", gpt2 ? "transformer.h" : "model.layers", rest.substr(0, dot));
    rest.remove_prefix(dot + 1);
    names = gpt2                                ? std::span<const Renamed>(kGpt2Layer)
            : architecture.starts_with("gemma") ? kGemmaLayer
                                                : std::span<const Renamed>(kLlamaLayer);
  }
  const size_t dot = rest.rfind('.');
  if (dot != std::string_view::npos)
    for (const Renamed& name : names)
      if (name.gguf == rest.substr(0, dot))
        return prefix + std::string(name.checkpoint) + std::string(rest.substr(dot));
  return std::string(tensor);
}

int64_t interleaved_heads(const GgufMetadata& metadata, std::string_view tensor) {
  if (metadata.get_text("general.architecture") != "llama") return 0;
  const auto is = [&](std::string_view name) {
    return tensor.ends_with(std::string(name) + ".weight") || tensor.ends_with(std::string(name) + ".bias");
  };
  const int64_t heads = metadata.get_integer("llama.attention.head_count", 1, kMaxHeads);
  if (is(".attn_q")) return heads;
  if (is(".attn_k")) return metadata.get_integer("llama.attention.head_count_kv", 1, kMaxHeads, heads);
  return 0;
}

}  // namespace tinyserve
