// What policies read and miss of dense attention's steps: the part of learn.h that measures.

#include <algorithm>
#include <cmath>

#include "eval/learn.h"
#include "select/choosing_selector.h"
#include "select/policies.h"

namespace tinyserve::eval {
namespace {

constexpr const char* kPolicies[] = {"quest", "moments", "oracle", "tinyserve"};

std::shared_ptr<Selector> make(const LearnContext& c, const char* policy, const SelectionMaps& maps) {
  const ModelConfig& m = c.model.config();
  SelectionConfig config = c.config;
  config.policy = policy;
  return make_selector({.ops = c.ops,
                        .config = config,
                        .maps = &maps,
                        .num_layers = m.num_layers,
                        .num_heads = m.num_heads,
                        .head_dim = m.head_dim});
}

/// Dense steps at which every policy answers, too, into memory of its own.
class Judge final : public Selector {
 public:
  Judge(const LearnContext& c, const SelectionMaps& maps, std::span<PolicyReport> reports)
      : c_(c), maps_(maps), placed_(c.ops, maps), reports_(reports) {
    const ModelConfig& m = c.model.config();
    out_ = c.ops.allocate(sizeof(float) * static_cast<size_t>(m.num_heads * m.head_dim));
    renew();
  }
  /// Before each context: policies of pages keep what they made of them.
  void renew() {
    selectors_.clear();
    for (const PolicyReport& r : reports_) selectors_.push_back(make(c_, r.policy.c_str(), maps_));
  }
  void begin_step(int32_t num_seqs, std::span<const SequenceSelection> selections) override {
    Selector::begin_step(num_seqs, selections);
    for (const auto& s : selectors_) s->begin_step(num_seqs, selections);
  }
  void appended(const AppendedRows& rows) override {
    for (const auto& s : selectors_) s->appended(rows);
  }
  void attend(int32_t layer, const ops::AttentionArgs& args, const ops::BatchLayout& batch,
              std::span<const ops::SparseRow> rows) override {
    c_.ops.attention(args, batch);
    const ops::SelectionMap* map = placed_.layer(layer);
    if (!map || rows.size() != 1) return;
    log_masses_.clear();
    const StudyReads anything{.exact = 1, .sinks = c_.config.sinks, .recent = c_.config.recent};
    for (int32_t h = 0; h < args.cache.kv_heads; ++h)
      for (const CodeStudy& s : study_codes(args, batch, rows[0], h, *map, anything)) log_masses_.push_back(s.log_mass);
    for (size_t i = 0; i < reports_.size(); ++i) judge(i, layer, args, batch, rows[0], *map);
    queries_ += args.num_heads;
  }
  void finish() {
    for (PolicyReport& r : reports_) r.mass /= queries_, r.coded_mass /= queries_, r.output_error /= queries_;
  }

 private:
  void judge(size_t i, int32_t layer, ops::AttentionArgs args, const ops::BatchLayout& batch, ops::SparseRow row,
             const ops::SelectionMap& map) {
    PolicyReport& r = reports_[i];
    const float* dense = args.out + row.row * args.out_stride;
    row.exact = r.budget, row.coded = r.coded;
    args.out = out_->as<float>() - row.row * args.out_stride;
    selectors_[i]->attend(layer, args, batch, {&row, 1});
    const int32_t d = args.cache.head_dim;
    for (int32_t h = 0; h < args.num_heads; ++h) {
      double off = 0, norm = 0;
      for (int32_t x = h * d; x < (h + 1) * d; ++x)
        off += std::pow(out_->as<float>()[x] - dense[x], 2), norm += std::pow(dense[x], 2);
      r.output_error += norm > 0 ? std::sqrt(off / norm) : 0;
    }
    if (const auto* choosing = dynamic_cast<const ChoosingSelector*>(selectors_[i].get())) {
      for (size_t h = 0; h < log_masses_.size(); ++h) r.mass += std::exp(choosing->log_masses()[h] - log_masses_[h]);
      return;
    }
    const LayerReads& reads = placed_.reads(layer);
    const StudyReads study{reads.exact_of(r.budget), reads.coded_of(r.coded),
                           reads.fine_divisor_of(c_.config.fine_divisor), c_.config.sinks, c_.config.recent};
    for (int32_t h = 0; h < args.cache.kv_heads; ++h)
      for (const CodeStudy& s : study_codes(args, batch, row, h, map, study))
        r.mass += s.exact, r.coded_mass += s.coded;
  }

  const LearnContext& c_;
  const SelectionMaps& maps_;
  PlacedMaps placed_;
  std::span<PolicyReport> reports_;
  std::vector<std::shared_ptr<Selector>> selectors_;
  std::unique_ptr<ops::Memory> out_;
  std::vector<double> log_masses_;  // [query heads], of the query at hand
  double queries_ = 0;
};

}  // namespace

size_t report_trials(std::span<const int32_t> budgets) { return 1 + std::size(kPolicies) * budgets.size(); }

std::vector<PolicyReport> report_policies(const LearnContext& c, std::span<const Task> tasks, const SelectionMaps& maps,
                                          std::span<const int32_t> budgets) {
  std::vector<PolicyReport> reports;
  for (const char* policy : kPolicies)
    for (const int32_t budget : budgets)
      reports.push_back(
          {.policy = policy, .budget = budget, .coded = policy == std::string("tinyserve") ? 2 * budget : 0});
  const auto judge = std::make_shared<Judge>(c, maps, reports);
  std::vector<StepTrial> trials{{.name = "judge",
                                 .make = [judge] { return judge->renew(), judge; },
                                 .per_context = true,
                                 .selection = {.from = 0}}};
  for (const PolicyReport& r : reports)
    trials.push_back({.name = r.policy,
                      .make = [&c, &maps, name = r.policy] { return make(c, name.c_str(), maps); },
                      .per_context = true,
                      .selection = {.from = 0, .exact = r.budget, .coded = r.coded}});
  run_trials(c.runner, tasks, *make(c, "tinyserve", maps), trials);
  judge->finish();
  for (size_t i = 0; i < reports.size(); ++i)
    reports[i].divergence = trials[i + 1].mean_divergence(), reports[i].bytes_share = trials[i + 1].bytes_share();
  return reports;
}

}  // namespace tinyserve::eval
