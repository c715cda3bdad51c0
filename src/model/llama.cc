#include "model/config_fields.h"
#include "model/families.h"
#include "model/llama_decoder.h"

namespace tinyserve {

std::unique_ptr<Model> load_llama(const LoadContext& context) {
  LlamaSettings settings = read_llama_settings(context);
  const Bias attention_bias{context.config.flag("attention_bias", false)};
  settings.qkv_bias = settings.out_bias = attention_bias;
  settings.mlp_bias = Bias{context.config.flag("mlp_bias", false)};
  context.config.reject_unless_neutral("sliding_window", "Llama sees all tokens; is this a Mistral?");
  // No window: anything but full_attention in layer_types is an error.
  settings.windows = read_windows(context.config, settings.model.num_layers, 0, nullptr, 0);
  return make_llama_decoder(context, settings);
}

}  // namespace tinyserve
