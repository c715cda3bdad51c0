#pragma once
// Fields that several families' configurations share.

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "model/config_reader.h"
#include "model/model.h"

namespace tinyserve {

/// vocab_size, and the special tokens from generation_config.json (if there) before config.json.
void read_vocabulary(const ConfigReader& config, const std::filesystem::path& folder, ModelConfig& model);

/// "silu", "gelu_new", ...; throws InputError for a function that ops do not have.
ops::Activation read_activation(const ConfigReader& config, std::string_view field, std::string_view fallback);

/// hidden_size / heads; throws InputError when they do not divide.
int32_t divide_heads(const ConfigReader& config, std::string_view heads_field, int32_t hidden_size, int32_t num_heads);
/// head_dim where given; else `fallback` when > 0, else divide_heads().
int32_t read_head_dim(const ConfigReader& config, int32_t hidden_size, int32_t num_heads, int32_t fallback = 0);
/// Throws InputError unless heads * head_dim stays within bounds and KV heads divide query heads.
void check_heads(const ConfigReader& config, std::string_view kv_heads_field, const ModelConfig& model);

/// Attention window of each layer, 0 for all tokens: from layer_types where given, else from `is_sliding`.
/// `window`: 0 when the configuration has none.
std::vector<int32_t> read_windows(const ConfigReader& config, int32_t num_layers, int32_t window,
                                  bool (*is_sliding)(int32_t layer, int32_t first_sliding_layer),
                                  int32_t first_sliding_layer);

/// Throws InputError for fields that change the result in ways no family here computes (quantised checkpoints, mixtures
/// of experts, attention sinks, cross attention, multipliers of other families).
void reject_uncomputed_fields(const ConfigReader& config);

}  // namespace tinyserve
