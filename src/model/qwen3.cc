#include "model/families.h"
#include "model/llama_decoder.h"
#include "model/qwen_windows.h"

namespace tinyserve {

std::unique_ptr<Model> load_qwen3(const LoadContext& context) {
  LlamaSettings settings = read_llama_settings(context, 128);
  context.config.reject_unless_neutral("mlp_bias", "Qwen3's MLP has no biases");
  settings.qkv_bias = settings.out_bias = Bias{context.config.flag("attention_bias", false)};
  settings.qk_norm = true;
  settings.windows = read_qwen_windows(context.config, settings.model.num_layers);
  return make_llama_decoder(context, settings);
}

}  // namespace tinyserve
