#pragma once
// What a model's selection file has beyond maps, fitted to steps of held-out text and facts: factors on the offsets of
// estimates, layers that stay dense, and what each layer may read.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/code_study.h"
#include "eval/step_trials.h"
#include "select/selection_config.h"
#include "select/selection_maps.h"

namespace tinyserve::eval {

/// What trials need; all outlive them. The runner's pages have codes of every layer with a map, and values' if the
/// config says so.
struct LearnContext {
  Model& model;
  ops::Ops& ops;
  SequenceRunner& runner;
  SelectionConfig config;  ///< budget, coded and fine_divisor that layers' reads are fitted at; policy "tinyserve"
};

/// Factors on the expected errors of one layer's codes, head by head, and what estimates of its attention are off
/// without and with them: of the answer's mass, means over queries and heads.
struct LayerOffsets {
  std::vector<double> coarse, fine;
  double error_before = 0, error_after = 0;
};

/// Those that fit `tasks` best, [num_layers]; none for layers without maps.
std::vector<LayerOffsets> fit_offsets(const LearnContext& c, std::span<const Task> tasks, const SelectionMaps& maps);

/// Harm of one layer alone being sparse: KL to dense, nats a step.
struct LayerHarm {
  double plain = 0;                                  ///< as the config says
  double half_offsets = 0, offsets = 0;              ///< with the square root of the offsets' factors, with the factors
  static constexpr float kTokenFactors[] = {0.5f, 2, 4};    ///< on tokens read exactly and in codes
  static constexpr float kFineFactors[] = {0.25f, 0.5f, 2};  ///< on fine codes read
  double tokens[3] = {}, fine[3] = {};
};

/// For every layer with a map; [num_layers], zeros for the others.
std::vector<LayerHarm> try_layers(const LearnContext& c, std::span<const Task> tasks, const SelectionMaps& maps,
                                  std::span<const LayerOffsets> offsets);
/// Trials that takes, for trial_tokens().
size_t layer_trials(const SelectionMaps& maps);

/// What a layer is to have, by its harm.
struct LayerChoice {
  bool dense = false;
  float strength = 0;  ///< 0, .5 or 1: the power of the offsets' factors
  LayerReads reads;
};

/// Layers whose harm is above `dense_above` even with four times the tokens are dense. Of the others offsets are those of least harm; tokens are
/// shared out so that the sum of harms is least while their mean stays; of fine codes a layer reads the fewest that do no more harm.
std::vector<LayerChoice> choose(std::span<const LayerHarm> harm, const SelectionMaps& maps, double dense_above);

/// `maps` with the chosen offsets, with what layers read (or that they are dense), or with both.
SelectionMaps applied(const SelectionMaps& maps, std::span<const LayerOffsets> offsets,
                      std::span<const LayerChoice> choices, bool use_offsets, bool use_reads);

/// harm [layers][4], with factors 1/2, 1, 2 and 4: the choice of least sum whose mean factor is 1 or less.
std::vector<float> share_out(const std::vector<std::vector<double>>& harm);

/// The whole model under `maps`.
StepTrial maps_trial(const LearnContext& c, const std::string& name, const SelectionMaps& maps);

/// A policy beside dense attention, layer by layer: each layer is asked with the queries that dense layers below give
/// it.
struct PolicyReport {
  std::string policy;
  int32_t budget = 0, coded = 0;
  double bytes_share = 1, divergence = 0;  ///< of whole steps
  double mass = 0;                         ///< of the true mass, what was read exactly
  double coded_mass = 0;                   ///< and with values as codes
  double output_error = 0;  ///< |answer - dense answer| / |dense answer|, mean over queries, layers and heads
};

/// quest, moments, oracle and tinyserve at each budget, twice it in codes.
std::vector<PolicyReport> report_policies(const LearnContext& c, std::span<const Task> tasks, const SelectionMaps& maps,
                                          std::span<const int32_t> budgets);
/// Trials that takes.
size_t report_trials(std::span<const int32_t> budgets);

}  // namespace tinyserve::eval
