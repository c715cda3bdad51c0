#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "cli/bench_report.h"
#include "cli/context_list.h"
#include "cli/eval_report.h"
#include "cli/flags.h"
#include "cli/model_runtime.h"
#include "cli/progress.h"
#include "cli/selection_setup.h"
#include "eval/perplexity.h"
#include "eval/task.h"
#include "eval/task_run.h"
#include "select/policies.h"
#include "text/tokenizer.h"

namespace tinyserve::cli {
namespace {

constexpr int32_t kShortest = 16, kLongest = 1 << 24;
constexpr int32_t kDefaultQuestions = 24, kDefaultSequences = 16;  // of tasks, of running text that is decoded
constexpr int32_t kDefaultDecode = 128;  // with policies that read less than everything
const std::map<std::string, eval::TaskKind> kTasks = {{"needle", eval::TaskKind::kNeedle},
                                                      {"multineedle", eval::TaskKind::kMultiNeedle},
                                                      {"passkey", eval::TaskKind::kPasskey},
                                                      {"recall", eval::TaskKind::kRecall},
                                                      {"ppl", eval::TaskKind::kText}};

struct EvalFlags {
  ModelFlags model;
  std::string tasks = "ppl", contexts = "2k", policies = "full", json, svg;
  std::vector<std::string> text;
  int32_t count = 0, questions = 1, decode = 0;
  std::optional<uint64_t> seed;
  std::vector<int32_t> budgets = {256};
  std::optional<int32_t> coded;
  SelectionConfig selection{.from = 0};
};

std::vector<std::string> names_of(const std::string& flag, const std::string& list, const std::vector<std::string>& known) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t comma = std::min(list.find(',', begin), list.size());
    const std::string name = list.substr(begin, comma - begin);
    if (std::find(known.begin(), known.end(), name) == known.end())
      throw InputError(fmt::format("{} {}: there is no '{}'; there are {}", flag, list, name, fmt::join(known, ", ")));
    if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
    begin = comma + 1;
  }
  return out;
}

std::vector<int32_t> contexts_of(const EvalFlags& f) {
  try {
    return parse_contexts(f.contexts, kShortest, kLongest);
  } catch (const InputError& e) {
    throw InputError(fmt::format("--context {}: {}", f.contexts, e.what()));
  }
}

/// One row for each context.
Json run_perplexity(eval::SequenceRunner& runner, const eval::EvalText& text, const EvalFlags& f, const std::vector<int32_t>& contexts) {
  Json rows = Json::array();
  fmt::print("\n| context | chunks | tokens scored |   loss |   ± | perplexity |     ± |\n|---:|---:|---:|---:|---:|---:|---:|\n");
  for (const int32_t context : contexts) {
    int64_t chunks = eval::perplexity_chunks(text, context);
    if (f.count > 0) chunks = std::min<int64_t>(chunks, f.count);
    Progress progress(fmt::format("tokens at context {}", context), chunks * (context - 1));
    runner.on_step = [&progress](int32_t n) { progress.add(n); };
    const eval::Loss loss = eval::perplexity(runner, text, context, chunks);
    runner.on_step = nullptr;
    progress.clear();
    const double ppl = std::exp(loss.mean);
    fmt::print("| {} | {} | {} | {:.4f} | {:.4f} | {:.4f} | {:.4f} |\n", context, chunks, loss.tokens, loss.mean, loss.standard_error, ppl, ppl * loss.standard_error);
    std::fflush(stdout);
    rows.push_back({{"task", "ppl"}, {"policy", "full"}, {"bytes_share", 1}, {"context", context}, {"chunks", chunks}, {"tokens", loss.tokens}, {"loss", loss.mean},
                    {"loss_standard_error", loss.standard_error}, {"ppl", ppl}, {"ppl_standard_error", ppl * loss.standard_error}});
  }
  return rows;
}

/// All tasks of one kind and length, made before any is run: what is wrong with the text is known at once.
std::vector<eval::Task> make_tasks(const eval::TaskMaker& maker, const std::string& name, int32_t context, const EvalFlags& f) {
  const eval::TaskKind kind = kTasks.at(name);
  const int32_t per_context = std::min(f.questions, eval::TaskMaker::questions_of(kind));
  int32_t left = f.count > 0 ? f.count : kind == eval::TaskKind::kText ? kDefaultSequences : kDefaultQuestions;
  std::vector<eval::Task> tasks;
  try {
    for (; left > 0; left -= per_context) tasks.push_back(maker.make(kind, context, static_cast<int64_t>(tasks.size()), std::min(left, per_context)));
  } catch (const InputError& e) {
    throw InputError(fmt::format("--task {}: {}", name, e.what()));
  }
  return tasks;
}

/// What is read under each policy and budget. `maps` are null when no policy needs any.
std::vector<eval::ReadPolicy> read_policies(ModelRuntime& runtime, const EvalFlags& f, const std::vector<std::string>& names,
                                            const std::shared_ptr<const SelectionMaps>& maps) {
  std::vector<eval::ReadPolicy> out;
  const ModelConfig& model = runtime.model().config();
  for (const std::string& name : names) {
    const Policy& policy = find_policy(name);
    if (!policy.make) {
      out.push_back({.name = name});
      continue;
    }
    SelectionConfig config = f.selection;
    config.policy = name;
    const auto make = [&ops = runtime.ops(), config, maps, &model] {
      return make_selector({.ops = ops, .config = config, .maps = maps.get(), .num_layers = model.num_layers, .num_heads = model.num_heads, .head_dim = model.head_dim});
    };
    using Life = eval::ReadPolicy::Life;
    for (const int32_t budget : f.budgets)
      out.push_back({.name = name,
                     .make = make,
                     .selection = {.from = config.from, .exact = budget, .coded = policy.codes ? f.coded.value_or(2 * budget) : 0},
                     .life = policy.serves ? Life::kForever : policy.prompt ? Life::kRun : Life::kTask});
  }
  return out;
}

struct Work {
  std::string task;
  int32_t context = 0;
  std::vector<eval::Task> tasks;
};

std::vector<TaskReport> run_work(eval::SequenceRunner& runner, const std::vector<Work>& works, const std::vector<eval::ReadPolicy>& policies) {
  std::vector<TaskReport> reports;
  fmt::print("\n{}", task_table_head());
  std::fflush(stdout);
  for (const Work& work : works) {
    Progress progress(fmt::format("{} at context {}: tokens", work.task, work.context), eval::task_tokens(work.tasks, policies));
    runner.on_step = [&progress](int32_t n) { progress.add(n); };
    reports.push_back({work.task, work.context, eval::run_tasks(runner, kTasks.at(work.task), work.tasks, policies)});
    runner.on_step = nullptr;
    progress.clear();
    fmt::print("{}", task_table_rows(reports.back()));
    std::fflush(stdout);
  }
  return reports;
}

int run(const EvalFlags& f) {
  if (f.text.empty()) throw InputError("--text FILE is missing: the text to measure on, which the model was not trained on");
  const std::vector<std::string> tasks = names_of("--task", f.tasks, {"ppl", "needle", "multineedle", "passkey", "recall"});
  const std::vector<std::string> chosen = names_of("--policy", f.policies, policy_names(false));
  const std::vector<int32_t> contexts = contexts_of(f);
  const bool dense_only = chosen == std::vector<std::string>{"full"};
  const int32_t decode = f.decode > 0 || dense_only ? f.decode : kDefaultDecode;
  if (!f.svg.empty() && decode == 0 && tasks == std::vector<std::string>{"ppl"})
    throw InputError("--svg draws what steps after a context read; for running text that is --task ppl with --decode 128");

  ModelRuntime runtime(f.model);
  const auto tokenizer = Tokenizer::load(runtime.folder());
  const eval::EvalText text = eval::load_eval_text(*tokenizer, f.text);
  const bool coded = std::any_of(chosen.begin(), chosen.end(), [](const std::string& name) { return find_policy(name).codes; });
  const std::shared_ptr<const SelectionMaps> maps = obtain_maps(runtime, f.selection.maps_file, coded);
  const CodeShape codes = maps ? CodeShape{.layers = maps->coded_layers(), .values = f.selection.value_codes} : CodeShape{};
  const std::vector<eval::ReadPolicy> policies = read_policies(runtime, f, chosen, maps);
  eval::SequenceRunner runner(runtime.model(), runtime.ops(), runtime.pool(), *std::max_element(contexts.begin(), contexts.end()), codes);
  const eval::TaskMaker maker(*tokenizer, text, f.seed.value_or(1), decode);
  std::vector<Work> works;
  for (const std::string& task : tasks)
    if (task != "ppl" || decode > 0)
      for (const int32_t context : contexts) works.push_back({task, context, make_tasks(maker, task, context, f)});

  fmt::print("{}\ntext: {} tokens\n", describe_runtime_line(runtime), text.tokens.size());
  Json rows = Json::array();
  if (decode == 0 && std::find(tasks.begin(), tasks.end(), "ppl") != tasks.end()) rows = run_perplexity(runner, text, f, contexts);
  std::vector<TaskReport> reports;
  if (!works.empty()) reports = run_work(runner, works, policies);
  for (const TaskReport& report : reports)
    for (Json& row : task_json(report)) rows.push_back(std::move(row));
  if (!f.json.empty())
    write_report(f.json, {{"task", f.tasks}, {"runtime", describe_runtime(runtime)}, {"text", f.text}, {"text_tokens", text.tokens.size()},
                          {"seed", f.seed.value_or(1)}, {"results", rows}});
  if (!f.svg.empty()) write_text(f.svg, task_plot(fmt::format("Quality against bytes read: {}", runtime.folder().filename().string()), reports));
  return 0;
}

}  // namespace

void add_eval(CLI::App& root, Action& action) {
  const auto f = std::make_shared<EvalFlags>();
  CLI::App& app = add_command(root, "eval", "Measure answers: perplexity of text, facts found in long contexts", action, [f] { return run(*f); });
  FlagGroup work(app, "Work");
  work.text("--task", f->tasks, "NAME,...",
            "ppl: perplexity over chunks of the text, as llama.cpp's tool computes it; needle, multineedle, passkey, recall: facts to find in a context")
      .texts("--text", f->text, "FILE", "Text to measure on, or a folder of .txt and .md; several are joined (required)")
      .text("--context", f->contexts, "N,...", "Tokens of a chunk or of a task; one row for each: 512, 2k, 1k,8k, or 1k..32k (doubling)")
      .number("--count", f->count, 0, 1 << 24, "Chunks of the text, from its start; questions of a task",
              fmt::format("all chunks, {} questions, {} continuations", kDefaultQuestions, kDefaultSequences))
      .number("--questions", f->questions, 1, 16, "Of those, asked of each context of multineedle and recall; its prompt is computed once")
      .number("--decode", f->decode, 0, 1 << 20, "Of ppl: score the last N tokens of contexts from anywhere in the text, one step each",
              fmt::format("half of every chunk; {} with a --policy other than full", kDefaultDecode))
      .number("--seed", f->seed, "Of the tasks", "1")
      .text("--json", f->json, "FILE", "Write the results there; - is stdout", "none")
      .text("--svg", f->svg, "FILE", "Draw quality against bytes read there", "none");
  add_log_flag(work);
  FlagGroup reads(app, "Selection");
  std::string policies_help = "How steps after the context read its K and V; one row for each:";
  for (const Policy& p : policies()) policies_help += fmt::format(" {} ({}),", p.name, p.help);
  policies_help.pop_back();
  reads.text("--policy", f->policies, "NAME,...", policies_help)
      .numbers("--budget", f->budgets, 1, 1 << 20,
               "Tokens that a policy reads exactly, per query and KV head, beside the first page and the newest; one "
               "row for each")
      .number("--coded", f->coded, 0, 1 << 20, "tinyserve: further tokens whose values are read as 3-bit codes",
              "twice the budget")
      .number("--fine", f->selection.fine_divisor, 1, 1 << 20,
              "tinyserve: one in so many tokens has the fine codes of its page read")
      .number("--select-from", f->selection.from, 0, 1 << 30, "Contexts of fewer tokens are read whole")
      .toggle("--value-codes", f->selection.value_codes,
              "tinyserve: without, --coded tokens' values are read as they are")
      .text(
          "--selection-maps", f->selection.maps_file, "FILE", "tinyserve: maps of the model's keys",
          "tinyserve_selection.json beside the model, or fitted once to a built-in text and kept in the cache folder");
  FlagGroup model(app, "Model");
  add_model_flags(model, f->model);
}

}  // namespace tinyserve::cli
