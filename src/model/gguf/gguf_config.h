#pragma once
// A GGUF file's metadata as the config.json that says the same, so that one loader per family serves both. For .cc
// files only: it brings in the whole JSON header.

#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>

#include "base/json.h"
#include "model/gguf/gguf_model.h"

namespace tinyserve {

struct GgufConfig {
  Json json;  ///< an object, as config.json has it
  /// The metadata key that a field was read from, for messages about it.
  std::unordered_map<std::string, std::string> keys;
};

/// general.architecture: llama, qwen2, qwen3, gemma2, gemma3, gpt2. Throws InputError naming file and key for any other, and
/// for what these families compute differently from what the metadata asks.
GgufConfig read_gguf_config(const GgufModel& model);

}  // namespace tinyserve
