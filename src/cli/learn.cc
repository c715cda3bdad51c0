#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/error.h"
#include "cli/flags.h"
#include "cli/model_runtime.h"
#include "cli/progress.h"
#include "eval/eval_text.h"
#include "model/calibration.h"

namespace tinyserve::cli {
namespace {

struct LearnFlags {
  ModelFlags model;
  std::vector<std::string> text;
  std::string output = "tinyserve_selection.json";
  int32_t context = 32768, tokens = 65536;
};

/// What share of a logit's variance codes leave, over the heads: mean and worst.
void print_errors(const SelectionMaps& maps) {
  fmt::print("\n| layer | heads | 4-bit axes, 2-bit axes: coarse | fine | error left by coarse codes | by fine codes |\n|---:|---:|---:|---:|---:|---:|\n");
  for (size_t l = 0; l < maps.layers.size(); ++l) {
    const std::vector<HeadMap>& heads = maps.layers[l];
    if (heads.empty()) continue;
    double coarse = 0, fine = 0, total = 0, bits[4] = {};
    for (const HeadMap& h : heads) {
      const auto d = h.mean.size();
      for (size_t a = 0; a < d; ++a) {
        // An axis weighs what it contributes to a logit's variance: the queries' second moment is the identity there.
        const double weight = h.variance[a];
        coarse += weight * h.coarse_error[a], fine += weight * h.fine_error[a], total += weight;
      }
      const int groups[] = {h.bits.coarse4, h.bits.coarse2, h.bits.fine4, h.bits.fine2};
      for (int i = 0; i < 4; ++i) bits[i] += 4.0 * groups[i] / static_cast<double>(heads.size());
    }
    fmt::print("| {} | {} | {:.1f}, {:.1f} | {:.1f}, {:.1f} | {:.2f}% | {:.2f}% |\n", l, heads.size(), bits[0], bits[1], bits[2], bits[3],
               100 * coarse / total, 100 * fine / total);
  }
}

int run(const LearnFlags& f) {
  if (f.text.empty()) throw InputError("--text FILE is missing: text of the kind that the model will be asked about");
  ModelRuntime runtime(f.model);
  const auto tokenizer = Tokenizer::load(runtime.folder());
  eval::EvalText text = eval::load_eval_text(*tokenizer, f.text);
  if (static_cast<int64_t>(text.tokens.size()) > f.tokens) text.tokens.resize(static_cast<size_t>(f.tokens));
  Progress progress("tokens", static_cast<int64_t>(text.tokens.size()));
  const SelectionMaps maps = calibrate(runtime.model(), runtime.ops(), text.tokens, f.context, [&](int32_t n) { progress.add(n); });
  progress.clear();
  maps.save(f.output);
  print_errors(maps);
  fmt::print("\n{}: fitted to {} tokens in contexts of up to {}\n", f.output, text.tokens.size(), std::min(f.context, runtime.model().config().max_positions));
  return 0;
}

}  // namespace

void add_learn(CLI::App& root, Action& action) {
  const auto f = std::make_shared<LearnFlags>();
  CLI::App& app = add_command(root, "learn", "Fit what --policy tinyserve needs to know of a model's keys to text", action, [f] { return run(*f); });
  FlagGroup work(app, "Work");
  work.texts("--text", f->text, "FILE", "Text to read; several are joined (required)")
      .number("--tokens", f->tokens, 64, 1 << 26, "Of the text, from its start")
      .number("--context", f->context, 64, 1 << 24, "Tokens read in one context, or as many as the model was made for")
      .text("--output", f->output, "FILE", "Where the maps go; `serve` finds them as tinyserve_selection.json in the model's folder");
  add_log_flag(work);
  FlagGroup model(app, "Model");
  add_model_flags(model, f->model);
}

}  // namespace tinyserve::cli
