#pragma once
#include <cstdint>
#include <vector>

#include "model/config_fields.h"
#include "model/limits.h"

namespace tinyserve {

/// Qwen2's and Qwen3's windows: none unless use_sliding_window; then in the layers from max_window_layers on.
inline std::vector<int32_t> read_qwen_windows(const ConfigReader& config, int32_t num_layers) {
  int32_t window = 0, first = num_layers;
  if (config.flag("use_sliding_window", false)) {
    window = config.integer("sliding_window", 1, kMaxPositions, config.mentions("sliding_window") ? 0 : 4096);
    first = config.integer("max_window_layers", 0, kMaxLayers, 28);
  }
  return read_windows(
      config, num_layers, window, [](int32_t layer, int32_t from) { return layer >= from; }, first);
}

}  // namespace tinyserve
