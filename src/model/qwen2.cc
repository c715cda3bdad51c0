#include "model/config_fields.h"
#include "model/families.h"
#include "model/llama_decoder.h"
#include "model/qwen_windows.h"

namespace tinyserve {

std::unique_ptr<Model> load_qwen2(const LoadContext& context) {
  LlamaSettings settings = read_llama_settings(context);
  context.config.reject_unless_neutral("mlp_bias", "Qwen2's MLP has no biases");
  settings.qkv_bias = Bias::kYes;  // q, k and v have biases, the output projection has none
  settings.windows = read_qwen_windows(context.config, settings.model.num_layers);
  return make_llama_decoder(context, settings);
}

}  // namespace tinyserve
