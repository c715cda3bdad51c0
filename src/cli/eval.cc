#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "cli/bench_report.h"
#include "cli/context_list.h"
#include "cli/flags.h"
#include "cli/model_runtime.h"
#include "cli/progress.h"
#include "eval/perplexity.h"
#include "text/tokenizer.h"

namespace tinyserve::cli {
namespace {

constexpr int32_t kShortest = 16, kLongest = 1 << 24;

struct EvalFlags {
  ModelFlags model;
  std::string task = "ppl", contexts = "2k", json;
  std::vector<std::string> text;
  int32_t count = 0;
};

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
    rows.push_back({{"context", context}, {"chunks", chunks}, {"tokens", loss.tokens}, {"loss", loss.mean},
                    {"loss_standard_error", loss.standard_error}, {"ppl", ppl}, {"ppl_standard_error", ppl * loss.standard_error}});
  }
  return rows;
}

int run(const EvalFlags& f) {
  if (f.text.empty()) throw InputError("--text FILE is missing: the text to measure on, which the model was not trained on");
  const std::vector<int32_t> contexts = contexts_of(f);
  ModelRuntime runtime(f.model);
  const auto tokenizer = Tokenizer::load(runtime.folder());
  const eval::EvalText text = eval::load_eval_text(*tokenizer, f.text);
  eval::SequenceRunner runner(runtime.model(), runtime.ops(), runtime.pool(), *std::max_element(contexts.begin(), contexts.end()));
  fmt::print("{}\ntext: {} tokens\n", describe_runtime_line(runtime), text.tokens.size());
  const Json rows = run_perplexity(runner, text, f, contexts);
  if (!f.json.empty())
    write_report(f.json, {{"task", f.task}, {"runtime", describe_runtime(runtime)}, {"text", f.text}, {"text_tokens", text.tokens.size()}, {"results", rows}});
  return 0;
}

}  // namespace

void add_eval(CLI::App& root, Action& action) {
  const auto f = std::make_shared<EvalFlags>();
  CLI::App& app = add_command(root, "eval", "Measure answers: perplexity of text", action, [f] { return run(*f); });
  FlagGroup work(app, "Work");
  work.choice("--task", {"ppl"}, "ppl: perplexity over chunks of the text, as llama.cpp's tool computes it", [f](const std::string& v) { f->task = v; })
      .texts("--text", f->text, "FILE", "Text to measure on; several are joined (required)")
      .text("--context", f->contexts, "N,...", "Tokens of a chunk; one row for each: 512, 2k, 1k,8k, or 1k..32k (doubling)")
      .number("--count", f->count, 0, 1 << 24, "Chunks of the text, from its start", "all")
      .text("--json", f->json, "FILE", "Write the results there; - is stdout", "none");
  add_log_flag(work);
  FlagGroup model(app, "Model");
  add_model_flags(model, f->model);
}

}  // namespace tinyserve::cli
