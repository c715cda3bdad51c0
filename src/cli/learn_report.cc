#include "cli/learn_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iterator>
#include <nlohmann/json.hpp>

namespace tinyserve::cli {
namespace {

std::string times(float factor) { return fmt::format("x{:g}", factor); }

}  // namespace

std::string code_error_table(const SelectionMaps& maps) {
  std::string out =
      "\n| layer | heads | 4-bit axes, 2-bit axes: coarse | fine | error left by coarse codes | by fine codes "
      "|\n|---:|---:|---:|---:|---:|---:|\n";
  for (size_t l = 0; l < maps.layers.size(); ++l) {
    const std::vector<HeadMap>& heads = maps.layers[l];
    if (heads.empty()) continue;
    double coarse = 0, fine = 0, total = 0, bits[4] = {};
    for (const HeadMap& h : heads) {
      for (size_t a = 0; a < h.mean.size(); ++a) {
        // An axis weighs what it contributes to a logit's variance: the queries' second moment is the identity there.
        const double weight = h.variance[a];
        coarse += weight * h.coarse_error[a], fine += weight * h.fine_error[a], total += weight;
      }
      const int groups[] = {h.bits.coarse4, h.bits.coarse2, h.bits.fine4, h.bits.fine2};
      for (int i = 0; i < 4; ++i) bits[i] += 4.0 * groups[i] / static_cast<double>(heads.size());
    }
    fmt::format_to(std::back_inserter(out), "| {} | {} | {:.1f}, {:.1f} | {:.1f}, {:.1f} | {:.2f}% | {:.2f}% |\n", l,
                   heads.size(), bits[0], bits[1], bits[2], bits[3], 100 * coarse / total, 100 * fine / total);
  }
  return out;
}

std::string layer_table(std::span<const eval::LayerOffsets> offsets, std::span<const eval::LayerHarm> harm,
                        std::span<const eval::LayerChoice> choices) {
  std::string out =
      "\nKL to dense with one layer sparse, nats a token:\n\n| layer | as it is | offsets (half, full) | tokens x1/2, "
      "x2, x4 | fine codes x1/4, x1/2, x2 | offsets: coarse | fine | estimates off | with offsets | "
      "taken: offsets | tokens | fine codes |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
  for (size_t l = 0; l < harm.size(); ++l) {
    if (offsets[l].coarse.empty()) continue;
    const eval::LayerHarm& h = harm[l];
    const eval::LayerChoice& c = choices[l];
    fmt::format_to(std::back_inserter(out),
                   "| {} | {:.5f} | {:.5f}, {:.5f} | {:.5f}, {:.5f}, {:.5f} | {:.5f}, {:.5f}, {:.5f} | {:.2f} | {:.2f} "
                   "| {:.4f} | {:.4f} | {} |\n",
                   l, h.plain, h.half_offsets, h.offsets, h.tokens[0], h.tokens[1], h.tokens[2], h.fine[0], h.fine[1],
                   h.fine[2], fmt::join(offsets[l].coarse, " "), fmt::join(offsets[l].fine, " "),
                   offsets[l].error_before, offsets[l].error_after,
                   c.dense ? "dense | - | -"
                           : fmt::format("{:g} | {} | {}", c.strength, times(c.reads.exact), times(c.reads.fine)));
  }
  return out;
}

Json layer_json(std::span<const eval::LayerOffsets> offsets, std::span<const eval::LayerHarm> harm,
                std::span<const eval::LayerChoice> choices) {
  Json rows = Json::array();
  for (size_t l = 0; l < harm.size(); ++l) {
    if (offsets[l].coarse.empty()) continue;
    const eval::LayerHarm& h = harm[l];
    const eval::LayerChoice& c = choices[l];
    rows.push_back({{"layer", l},
                    {"coarse_factors", offsets[l].coarse},
                    {"fine_factors", offsets[l].fine},
                    {"error_before", offsets[l].error_before},
                    {"error_after", offsets[l].error_after},
                    {"kl", h.plain},
                    {"kl_offsets", {h.half_offsets, h.offsets}},
                    {"kl_tokens", h.tokens},
                    {"kl_fine", h.fine},
                    {"dense", c.dense},
                    {"offsets", c.strength},
                    {"reads", {{"exact", c.reads.exact}, {"coded", c.reads.coded}, {"fine", c.reads.fine}}}});
  }
  return rows;
}

std::string choice_table(std::span<const eval::StepTrial> trials, size_t kept) {
  std::string out = "\n| fitted | bytes read | KL to dense, nats a token | |\n|---|---:|---:|---|\n";
  for (size_t i = 0; i < trials.size(); ++i)
    fmt::format_to(std::back_inserter(out), "| {} | 1/{:.1f} | {:.5f} | {} |\n", trials[i].name,
                   1 / trials[i].bytes_share(), trials[i].mean_divergence(), i == kept ? "kept" : "");
  return out;
}

Json choice_json(std::span<const eval::StepTrial> trials, size_t kept) {
  Json rows = Json::array();
  for (size_t i = 0; i < trials.size(); ++i)
    rows.push_back({{"fitted", trials[i].name},
                    {"bytes_share", trials[i].bytes_share()},
                    {"kl", trials[i].mean_divergence()},
                    {"steps", trials[i].steps},
                    {"kept", i == kept}});
  return rows;
}

std::string policy_table(std::span<const eval::PolicyReport> reports) {
  std::string out =
      "\n| policy | tokens | bytes read | KL to dense, nats a token | attention read exactly | and in codes | error of "
      "a layer's attention |\n|---|---:|---:|---:|---:|---:|---:|\n";
  for (const eval::PolicyReport& r : reports)
    fmt::format_to(std::back_inserter(out), "| {} | {}{} | 1/{:.1f} | {:.5f} | {:.4f} | {} | {:.4f} |\n", r.policy,
                   r.budget, r.coded > 0 ? fmt::format(" + {}", r.coded) : "", 1 / r.bytes_share, r.divergence, r.mass,
                   r.coded > 0 ? fmt::format("{:.4f}", r.coded_mass) : "-", r.output_error);
  return out;
}

Json policy_json(std::span<const eval::PolicyReport> reports) {
  Json rows = Json::array();
  for (const eval::PolicyReport& r : reports)
    rows.push_back({{"policy", r.policy},
                    {"budget", r.budget},
                    {"coded", r.coded},
                    {"bytes_share", r.bytes_share},
                    {"kl", r.divergence},
                    {"mass", r.mass},
                    {"coded_mass", r.coded_mass},
                    {"output_error", r.output_error}});
  return rows;
}

}  // namespace tinyserve::cli
