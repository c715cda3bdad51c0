#pragma once
// From flags to a policy at work: which one, what it may read, and where the maps of the model's keys come from.

#include <memory>
#include <string>

#include "engine/engine.h"
#include "select/selection_config.h"
#include "select/selection_maps.h"

namespace tinyserve::cli {

class FlagGroup;
class ModelRuntime;

/// --policy (of those that serve), --budget, --select-from, --coded, --value-codes, --selection-maps.
void add_selection_flags(FlagGroup& group, SelectionConfig& config);
/// Only those after --budget, for commands that take lists of policies and budgets.
void add_selection_detail_flags(FlagGroup& group, SelectionConfig& config);

/// Maps for policies with codes, else null. From `file` when given, else tinyserve_selection.json beside the model,
/// else models/selection/, which has files for published models under the digest of their weights, else the cache
/// folder
/// ($XDG_CACHE_HOME or ~/.cache, tinyserve/), else fitted to the built-in text, which takes seconds, and put into the
/// cache. Calls model.reserve() when it fits. Throws InputError.
std::shared_ptr<const SelectionMaps> obtain_maps(ModelRuntime& runtime, const std::string& file, bool needed);

/// `config` with what an engine has to know of the model: its maps when the policy needs some, its fingerprint when tiers do.
EngineConfig engine_config_for(ModelRuntime& runtime, EngineConfig config);

}  // namespace tinyserve::cli
