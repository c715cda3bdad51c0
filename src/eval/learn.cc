#include "eval/learn.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "select/policies.h"

namespace tinyserve::eval {
namespace {

std::shared_ptr<Selector> make(const LearnContext& c, const SelectionMaps& maps) {
  const ModelConfig& m = c.model.config();
  return make_selector({.ops = c.ops,
                        .config = c.config,
                        .maps = &maps,
                        .num_layers = m.num_layers,
                        .num_heads = m.num_heads,
                        .head_dim = m.head_dim});
}

/// Dense steps, watched: every query's masses go into the fits.
class Recorder final : public Selector {
 public:
  Recorder(const LearnContext& c, const SelectionMaps& maps)
      : ops_(c.ops),
        codes_(make(c, maps)),
        maps_(c.ops, maps),
        reads_{c.config.budget, c.config.coded, c.config.fine_divisor, c.config.sinks, c.config.recent},
        heads_(c.model.config().num_kv_heads),
        coarse_(maps.layers.size() * static_cast<size_t>(heads_)),
        fine_(coarse_.size()) {}

  void begin_step(int32_t num_seqs, std::span<const SequenceSelection> selections) override {
    Selector::begin_step(num_seqs, selections);
    codes_->begin_step(num_seqs, selections);
  }
  void appended(const AppendedRows& rows) override { codes_->appended(rows); }
  void attend(int32_t layer, const ops::AttentionArgs& args, const ops::BatchLayout& batch,
              std::span<const ops::SparseRow> rows) override {
    ops_.attention(args, batch);
    const ops::SelectionMap* map = maps_.layer(layer);
    for (size_t i = 0; map && i < rows.size(); ++i)
      for (int32_t h = 0; h < heads_; ++h)
        for (const CodeStudy& s : study_codes(args, batch, rows[i], h, *map, reads_))
          coarse(layer, h).add(s.coarse), fine(layer, h).add(s.fine);
  }

  OffsetFit& coarse(int32_t layer, int32_t head) { return coarse_[static_cast<size_t>(layer * heads_ + head)]; }
  OffsetFit& fine(int32_t layer, int32_t head) { return fine_[static_cast<size_t>(layer * heads_ + head)]; }

 private:
  ops::Ops& ops_;
  std::shared_ptr<Selector> codes_;
  PlacedMaps maps_;
  const StudyReads reads_;
  const int32_t heads_;
  std::vector<OffsetFit> coarse_, fine_;  // [layers, KV heads]
};

SelectionMaps only_layer(const SelectionMaps& maps, size_t layer, const LayerReads& reads) {
  SelectionMaps one;
  one.layers.resize(maps.layers.size());
  one.reads.resize(maps.layers.size());
  one.layers[layer] = maps.layers[layer];
  one.reads[layer] = reads;
  return one;
}

void scale_errors(std::vector<HeadMap>& heads, const LayerOffsets& offsets, double power) {
  for (size_t h = 0; h < heads.size(); ++h) {
    for (float& e : heads[h].coarse_error) e *= static_cast<float>(std::pow(offsets.coarse[h], power));
    for (float& e : heads[h].fine_error) e *= static_cast<float>(std::pow(offsets.fine[h], power));
  }
}

constexpr size_t kTrials = 3 + std::size(LayerHarm::kTokenFactors) + std::size(LayerHarm::kFineFactors);
constexpr int kUnits[] = {1, 2, 4, 8};  // halves: factors of share_out()

}  // namespace

std::vector<LayerOffsets> fit_offsets(const LearnContext& c, std::span<const Task> tasks, const SelectionMaps& maps) {
  const auto recorder = std::make_shared<Recorder>(c, maps);
  StepTrial trial{.name = "recorder",
                  .make = [&] { return recorder; },
                  .selection = {.from = 0, .exact = c.config.budget, .coded = c.config.coded}};
  run_trials(c.runner, tasks, *make(c, maps), {&trial, 1});
  std::vector<LayerOffsets> out(maps.layers.size());
  for (size_t l = 0; l < maps.layers.size(); ++l)
    for (size_t h = 0; h < maps.layers[l].size(); ++h) {
      const OffsetFit& coarse = recorder->coarse(static_cast<int32_t>(l), static_cast<int32_t>(h));
      const OffsetFit& fine = recorder->fine(static_cast<int32_t>(l), static_cast<int32_t>(h));
      const auto n = static_cast<double>(maps.layers[l].size());
      out[l].coarse.push_back(coarse.factor()), out[l].fine.push_back(fine.factor());
      out[l].error_before += (coarse.error(1) + fine.error(1)) / n;
      out[l].error_after += (coarse.error(coarse.factor()) + fine.error(fine.factor())) / n;
    }
  return out;
}

size_t layer_trials(const SelectionMaps& maps) {
  return kTrials * static_cast<size_t>(std::count_if(maps.layers.begin(), maps.layers.end(),
                                                     [](const auto& heads) { return !heads.empty(); }));
}

std::vector<LayerHarm> try_layers(const LearnContext& c, std::span<const Task> tasks, const SelectionMaps& maps,
                                  std::span<const LayerOffsets> offsets) {
  std::vector<StepTrial> trials;
  for (size_t l = 0; l < maps.layers.size(); ++l) {
    if (maps.layers[l].empty()) continue;
    for (const double power : {0.0, 0.5, 1.0}) {
      SelectionMaps one = only_layer(maps, l, {});
      scale_errors(one.layers[l], offsets[l], power);
      trials.push_back(maps_trial(c, "", one));
    }
    for (const float f : LayerHarm::kTokenFactors)
      trials.push_back(maps_trial(c, "", only_layer(maps, l, {.exact = f, .coded = f})));
    for (const float f : LayerHarm::kFineFactors) trials.push_back(maps_trial(c, "", only_layer(maps, l, {.fine = f})));
  }
  run_trials(c.runner, tasks, *make(c, maps), trials);
  std::vector<LayerHarm> out(maps.layers.size());
  auto trial = trials.begin();
  const auto next = [&] { return (trial++)->mean_divergence(); };
  for (size_t l = 0; l < maps.layers.size(); ++l) {
    if (maps.layers[l].empty()) continue;
    out[l].plain = next(), out[l].half_offsets = next(), out[l].offsets = next();
    for (double& x : out[l].tokens) x = next();
    for (double& x : out[l].fine) x = next();
  }
  return out;
}

std::vector<float> share_out(const std::vector<std::vector<double>>& harm) {
  // For every number of halves: the least harm of the first layers, and what the last of them takes.
  const size_t layers = harm.size(), room = 2 * layers;
  std::vector<std::vector<double>> least(layers + 1,
                                         std::vector<double>(room + 1, std::numeric_limits<double>::infinity()));
  std::vector<std::vector<int>> taken(layers + 1, std::vector<int>(room + 1, 0));
  std::fill(least[0].begin(), least[0].end(), 0.0);
  for (size_t l = 0; l < layers; ++l) {
    TS_CHECK(harm[l].size() == std::size(kUnits), "a harm for each factor");
    double so_far = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < std::size(kUnits); ++i) {
      so_far = std::min(so_far, harm[l][i]);  // reading more does no harm: what looks so is chance
      for (auto r = static_cast<size_t>(kUnits[i]); r <= room; ++r) {
        const double sum = least[l][r - static_cast<size_t>(kUnits[i])] + so_far;
        if (sum < least[l + 1][r]) least[l + 1][r] = sum, taken[l + 1][r] = kUnits[i];
      }
    }
  }
  std::vector<float> factors(layers);
  size_t left = room;
  for (size_t l = layers; l-- > 0;) {
    factors[l] = static_cast<float>(taken[l + 1][left]) / 2;
    left -= static_cast<size_t>(taken[l + 1][left]);
  }
  return factors;
}

namespace {

/// Twice as much where that helps by a third; else the least that does no more harm but for chance.
float fine_factor(const LayerHarm& h) {
  constexpr double kChance = 1.05, kHelps = 2.0 / 3;
  if (h.fine[2] < kHelps * h.plain) return LayerHarm::kFineFactors[2];
  for (const size_t i : {0, 1})
    if (h.fine[i] <= kChance * h.plain) return LayerHarm::kFineFactors[i];
  return 1;
}

}  // namespace

std::vector<LayerChoice> choose(std::span<const LayerHarm> harm, const SelectionMaps& maps, double dense_above) {
  std::vector<LayerChoice> out(harm.size());
  std::vector<size_t> sparse;
  std::vector<std::vector<double>> tokens;
  for (size_t l = 0; l < harm.size(); ++l) {
    if (maps.layers[l].empty()) continue;
    const LayerHarm& h = harm[l];
    out[l].dense = h.tokens[2] > dense_above;
    if (out[l].dense) continue;
    const double least = std::min({h.plain, h.half_offsets, h.offsets});
    out[l].strength = least == h.plain ? 0 : least == h.half_offsets ? 0.5f : 1;
    sparse.push_back(l);
    tokens.push_back({h.tokens[0], h.plain, h.tokens[1], h.tokens[2]});
    out[l].reads.fine = fine_factor(h);
  }
  const std::vector<float> more = share_out(tokens);
  for (size_t i = 0; i < sparse.size(); ++i) out[sparse[i]].reads.exact = out[sparse[i]].reads.coded = more[i];
  return out;
}

SelectionMaps applied(const SelectionMaps& maps, std::span<const LayerOffsets> offsets,
                      std::span<const LayerChoice> choices, bool use_offsets, bool use_reads) {
  SelectionMaps out = maps;
  for (size_t l = 0; l < maps.layers.size(); ++l) {
    if (use_offsets) scale_errors(out.layers[l], offsets[l], choices[l].strength);
    if (!use_reads) continue;
    out.reads[l] = choices[l].reads;
    if (choices[l].dense) out.layers[l].clear();
  }
  return out;
}

StepTrial maps_trial(const LearnContext& c, const std::string& name, const SelectionMaps& maps) {
  const std::shared_ptr<Selector> selector = make(c, maps);
  return {.name = name,
          .make = [selector] { return selector; },
          .selection = {.from = 0, .exact = c.config.budget, .coded = c.config.coded}};
}

}  // namespace tinyserve::eval
