#pragma once
// What `learn` shows of what it fitted: tables, and the same as JSON.

#include <span>
#include <string>

#include "base/json.h"
#include "eval/learn.h"

namespace tinyserve::cli {

/// What share of a logit's variance codes leave, layer by layer.
std::string code_error_table(const SelectionMaps& maps);
/// Offsets, harm and choice of each layer with a map.
std::string layer_table(std::span<const eval::LayerOffsets> offsets, std::span<const eval::LayerHarm> harm,
                        std::span<const eval::LayerChoice> choices);
Json layer_json(std::span<const eval::LayerOffsets> offsets, std::span<const eval::LayerHarm> harm,
                std::span<const eval::LayerChoice> choices);
/// What was compared to decide, and which was kept.
std::string choice_table(std::span<const eval::StepTrial> trials, size_t kept);
Json choice_json(std::span<const eval::StepTrial> trials, size_t kept);
std::string policy_table(std::span<const eval::PolicyReport> reports);
Json policy_json(std::span<const eval::PolicyReport> reports);

}  // namespace tinyserve::cli
