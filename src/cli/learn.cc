#include "eval/learn.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "cli/bench_report.h"
#include "cli/context_list.h"
#include "cli/flags.h"
#include "cli/learn_report.h"
#include "cli/model_runtime.h"
#include "cli/progress.h"
#include "eval/eval_text.h"
#include "model/calibration.h"
#include "text/tokenizer.h"

namespace tinyserve::cli {
namespace {

struct LearnFlags {
  ModelFlags model;
  std::vector<std::string> text;
  std::string output = "tinyserve_selection.json", json, trials = "2k,8k";
  int32_t context = 32768, tokens = 65536, samples = 1, decode = 32, questions = 2;
  bool maps_only = false;
  int32_t dense_above = 20;
  std::vector<int32_t> budgets = {128, 256};
  std::optional<int32_t> coded;
  std::optional<uint64_t> seed;
  SelectionConfig selection{.policy = "tinyserve", .from = 0};
};

/// Text in three parts that do not meet: maps are fitted to the first, all else to the second, and the last is what
/// figures are taken on.
struct Parts {
  eval::EvalText maps, fit, held_out;
};

/// Every file gives to every part. Throws as load_eval_text.
Parts divide(const Tokenizer& tokenizer, const LearnFlags& f) {
  Parts parts;
  for (const std::string& file : f.text) {
    const eval::EvalText text = eval::load_eval_text(tokenizer, {&file, 1});
    const auto all = static_cast<int64_t>(text.tokens.size()), wanted = f.tokens / static_cast<int64_t>(f.text.size());
    const int64_t maps = std::min(f.maps_only ? all : all / 2, wanted), rest = (all - maps) / 2;
    const auto add = [&](eval::EvalText& to, int64_t begin, int64_t end) {
      to.tokens.insert(to.tokens.end(), text.tokens.begin() + begin, text.tokens.begin() + end);
      to.bos = text.bos;
    };
    add(parts.maps, 0, maps), add(parts.fit, maps, maps + rest), add(parts.held_out, maps + rest, all);
  }
  return parts;
}

/// Running text and facts at every length, half of each.
std::vector<eval::Task> make_tasks(const Tokenizer& tokenizer, const eval::EvalText& text, const LearnFlags& f,
                                   const std::vector<int32_t>& contexts) {
  const eval::TaskMaker maker(tokenizer, text, f.seed.value_or(1), f.decode);
  std::vector<eval::Task> tasks;
  for (const int32_t context : contexts)
    for (int32_t i = 0; i < f.samples; ++i) {
      tasks.push_back(maker.make(eval::TaskKind::kText, context, i, 1));
      if (f.questions > 0) tasks.push_back(maker.make(eval::TaskKind::kMultiNeedle, context, i, f.questions));
    }
  return tasks;
}

/// Runs `work` while what it computes is shown.
template <class F>
auto shown(eval::SequenceRunner& runner, const std::string& what, std::span<const eval::Task> tasks, size_t trials,
           F&& work) {
  Progress progress(what, eval::trial_tokens(tasks, trials));
  runner.on_step = [&progress](int32_t n) { progress.add(n); };
  auto result = work();
  runner.on_step = nullptr;
  progress.clear();
  return result;
}

/// Of those that do little more harm than the best, the one that reads least.
size_t least_bytes(std::span<const eval::StepTrial> trials) {
  constexpr double kLittle = 1.05;
  double least = trials[0].divergence;
  for (const eval::StepTrial& t : trials) least = std::min(least, t.divergence);
  size_t best = trials.size();
  for (size_t i = 0; i < trials.size(); ++i)
    if (trials[i].divergence <= kLittle * least &&
        (best == trials.size() || trials[i].bytes_share() < trials[best].bytes_share()))
      best = i;
  return best;
}

/// What is fitted beside the maps; these are changed to what did best.
Json learn_reads(ModelRuntime& runtime, const Tokenizer& tokenizer, const Parts& parts, const LearnFlags& f,
                 SelectionMaps& maps) {
  std::vector<int32_t> contexts = parse_contexts(f.trials, 64, 1 << 24);
  std::erase_if(contexts, [&](int32_t c) { return c > runtime.model().config().max_positions; });
  if (contexts.empty())
    throw InputError(fmt::format("--trials {}: the model was made for contexts of {} tokens", f.trials,
                                 runtime.model().config().max_positions));
  std::vector<eval::Task> fit, held_out;
  try {
    fit = make_tasks(tokenizer, parts.fit, f, contexts), held_out = make_tasks(tokenizer, parts.held_out, f, contexts);
  } catch (const InputError& e) {
    throw InputError(
        fmt::format("trials need text of their own beside that of the maps (more --text, fewer --tokens, shorter "
                    "--trials, or --maps-only): {}",
                    e.what()));
  }
  eval::SequenceRunner runner(runtime.model(), runtime.ops(), runtime.pool(),
                              *std::max_element(contexts.begin(), contexts.end()),
                              {.layers = maps.coded_layers(), .values = f.selection.value_codes});
  eval::LearnContext c{runtime.model(), runtime.ops(), runner, f.selection};
  c.config.budget = f.budgets.front(), c.config.coded = f.coded.value_or(2 * f.budgets.front());

  const auto offsets =
      shown(runner, "offsets of estimates: tokens", fit, 1, [&] { return eval::fit_offsets(c, fit, maps); });
  const auto harm = shown(runner, "layers one by one: tokens", fit, eval::layer_trials(maps),
                          [&] { return eval::try_layers(c, fit, maps, offsets); });
  const std::vector<eval::LayerChoice> choices = eval::choose(harm, maps, f.dense_above / 1000.0);
  fmt::print("{}", layer_table(offsets, harm, choices));
  std::fflush(stdout);

  const SelectionMaps variants[] = {maps, eval::applied(maps, offsets, choices, true, false),
                                    eval::applied(maps, offsets, choices, false, true),
                                    eval::applied(maps, offsets, choices, true, true)};
  const char* names[] = {"maps", "maps, offsets", "maps, what layers read", "maps, offsets, what layers read"};
  std::vector<eval::StepTrial> trials;
  for (size_t i = 0; i < std::size(variants); ++i) trials.push_back(eval::maps_trial(c, names[i], variants[i]));
  shown(runner, "all layers: tokens", fit, trials.size(),
        [&] { return eval::run_trials(runner, fit, *trials[0].make(), trials), 0; });
  const size_t kept = least_bytes(trials);
  fmt::print("{}", choice_table(trials, kept));
  std::fflush(stdout);
  Json report = {{"layers", layer_json(offsets, harm, choices)}, {"choice", choice_json(trials, kept)}};
  maps = variants[kept];
  maps.save(f.output);

  const auto policies = shown(runner, "held-out steps: tokens", held_out, eval::report_trials(f.budgets),
                              [&] { return eval::report_policies(c, held_out, maps, f.budgets); });
  fmt::print("\nheld-out steps: {} contexts\n{}", held_out.size(), policy_table(policies));
  report["held_out"] = policy_json(policies);
  return report;
}

int run(const LearnFlags& f) {
  if (f.text.empty()) throw InputError("--text FILE is missing: text of the kind that the model will be asked about");
  ModelRuntime runtime(f.model);
  const auto tokenizer = Tokenizer::load(runtime.folder());
  const Parts parts = divide(*tokenizer, f);
  Progress progress("tokens read to fit maps", static_cast<int64_t>(parts.maps.tokens.size()));
  SelectionMaps maps =
      calibrate(runtime.model(), runtime.ops(), parts.maps.tokens, f.context, [&](int32_t n) { progress.add(n); });
  progress.clear();
  maps.save(f.output);
  fmt::print("{}", code_error_table(maps));
  std::fflush(stdout);
  Json report = {{"maps_tokens", parts.maps.tokens.size()}, {"text", f.text}};
  if (!f.maps_only) report.update(learn_reads(runtime, *tokenizer, parts, f, maps));
  fmt::print("\n{}: maps fitted to {} tokens in contexts of up to {}\n", f.output, parts.maps.tokens.size(),
             std::min(f.context, runtime.model().config().max_positions));
  if (!f.json.empty()) write_report(f.json, report);
  return 0;
}

}  // namespace

void add_learn(CLI::App& root, Action& action) {
  const auto f = std::make_shared<LearnFlags>();
  CLI::App& app = add_command(root, "learn", "Fit what --policy tinyserve needs to know of a model to text", action,
                              [f] { return run(*f); });
  FlagGroup work(app, "Work");
  work.texts("--text", f->text, "FILE",
             "Text to read; several are joined (required). Maps are fitted to the start of each, the rest is for "
             "trials and for figures")
      .number("--tokens", f->tokens, 64, 1 << 26, "Of the text for maps; at most half of it when there are trials")
      .number("--context", f->context, 64, 1 << 24, "Tokens read in one context, or as many as the model was made for")
      .text("--output", f->output, "FILE",
            "Where all of it goes; `serve` finds it as tinyserve_selection.json in the model's folder")
      .text("--json", f->json, "FILE", "Write the figures there; - is stdout", "none");
  add_log_flag(work);
  FlagGroup trials(app, "Trials");
  trials.toggle("--maps-only", f->maps_only, "Fit nothing but maps")
      .text("--trials", f->trials, "N,...", "Contexts in which steps are tried, densely and otherwise")
      .number("--samples", f->samples, 1, 1 << 16,
              "Contexts of each length: so many of running text and so many with sixteen facts")
      .number("--decode", f->decode, 1, 1 << 16, "Steps after one of running text")
      .number("--questions", f->questions, 0, 16, "Asked of one with facts; 0: none has any")
      .numbers("--budget", f->budgets, 1, 1 << 20,
               "Tokens read exactly: layers are tried at the first, policies compared at all")
      .number("--coded", f->coded, 0, 1 << 20, "Further tokens whose values are read as codes, while layers are tried",
              "twice the budget")
      .number("--fine", f->selection.fine_divisor, 1, 1 << 20,
              "One in so many tokens has the fine codes of its page read")
      .number(
          "--dense-above", f->dense_above, 0, 1 << 30,
          "A layer that alone does more harm, with twice the tokens, stays dense: KL in thousandths of a nat a token")
      .number("--seed", f->seed, "Of contexts and facts", "1");
  FlagGroup model(app, "Model");
  add_model_flags(model, f->model);
}

}  // namespace tinyserve::cli
