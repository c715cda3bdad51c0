#include "model/config_fields.h"
#include "model/families.h"
#include "model/limits.h"
#include "model/llama_decoder.h"

namespace tinyserve {

std::unique_ptr<Model> load_mistral(const LoadContext& context) {
  const ConfigReader& config = context.config;
  LlamaSettings settings = read_llama_settings(context);
  config.reject_unless_neutral("attention_bias", "Mistral has no biases");
  config.reject_unless_neutral("mlp_bias", "Mistral has no biases");
  // null: no window (from v0.2 on); missing: transformers' default, which the first release had.
  const int32_t missing = config.mentions("sliding_window") ? 0 : 4096;
  const int32_t window = config.integer("sliding_window", 1, kMaxPositions, missing);
  settings.windows = read_windows(
      config, settings.model.num_layers, window, [](int32_t, int32_t) { return true; }, 0);
  return make_llama_decoder(context, settings);
}

}  // namespace tinyserve
