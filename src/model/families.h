#pragma once
// The list of model families. A new one is a file with its load function, a declaration here and a line in families.cc.

#include <memory>
#include <span>
#include <string_view>

#include "model/decoder.h"

namespace tinyserve {

struct Family {
  std::string_view name;          ///< model_type of config.json
  std::string_view architecture;  ///< architectures[0] of config.json
  std::unique_ptr<Model> (*load)(const LoadContext& context);
};

std::span<const Family> families();

std::unique_ptr<Model> load_llama(const LoadContext& context);
std::unique_ptr<Model> load_mistral(const LoadContext& context);
std::unique_ptr<Model> load_qwen2(const LoadContext& context);
std::unique_ptr<Model> load_qwen3(const LoadContext& context);
std::unique_ptr<Model> load_gpt2(const LoadContext& context);
std::unique_ptr<Model> load_opt(const LoadContext& context);
std::unique_ptr<Model> load_gemma2(const LoadContext& context);
std::unique_ptr<Model> load_gemma3(const LoadContext& context);

}  // namespace tinyserve
