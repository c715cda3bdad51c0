#include "model/families.h"

namespace tinyserve {

std::span<const Family> families() {
  static constexpr Family kFamilies[] = {
      {"llama", "LlamaForCausalLM", load_llama},    {"mistral", "MistralForCausalLM", load_mistral},
      {"qwen2", "Qwen2ForCausalLM", load_qwen2},    {"qwen3", "Qwen3ForCausalLM", load_qwen3},
      {"gpt2", "GPT2LMHeadModel", load_gpt2},       {"opt", "OPTForCausalLM", load_opt},
      {"gemma2", "Gemma2ForCausalLM", load_gemma2}, {"gemma3", "Gemma3ForCausalLM", load_gemma3},
  };
  return kFamilies;
}

}  // namespace tinyserve
