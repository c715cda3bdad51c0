#pragma once
// The policies by name. One is one file in policies/ and one line in policies.cc.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "select/selection_config.h"
#include "select/selection_maps.h"
#include "select/selector.h"

namespace tinyserve {

struct PolicyContext {
  ops::Ops& ops;
  const SelectionConfig& config;
  const SelectionMaps* maps = nullptr;  ///< for policies with codes
  int32_t num_layers = 0, num_heads = 0, head_dim = 0;  ///< of the model, for policies that do not serve
};

struct Policy {
  const char* name;
  const char* help;
  bool codes;   ///< reads codes: pages need them, and the model maps
  bool serves;  ///< keeps no state of a sequence: may run in the server. The others are made anew for each sequence
  bool prompt;  ///< wants to see the last PromptWindow::kRows tokens of a prompt appended before it is first asked
  std::unique_ptr<Selector> (*make)(const PolicyContext& context);  ///< null for "full"
};

std::span<const Policy> policies();
/// Throws InputError that lists the names there are.
const Policy& find_policy(const std::string& name);
std::vector<std::string> policy_names(bool serving_only);

/// Null for "full". Throws InputError when the backend has no selection, or maps are missing.
std::unique_ptr<Selector> make_selector(const PolicyContext& context);

}  // namespace tinyserve
