#include "cli/bench_latency.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/bandwidth_probe.h"
#include "cli/bench_report.h"
#include "cli/model_runtime.h"
#include "cli/progress.h"
#include "cli/selection_setup.h"
#include "cli/step_driver.h"
#include "select/selection_request.h"

namespace tinyserve::cli {
namespace {

constexpr int32_t kFakePrompt = 512;  // tokens whose K/V are repeated by --fake-kv

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Case {
  int32_t depth, batch, input_len;
};

/// Seconds, one entry per measured iteration.
struct Times {
  std::vector<double> prefill;
  std::vector<double> step_mean, step_median;  ///< over the decode steps of the iteration
  std::vector<double> steps;                   ///< all of them
};

Times measure(StepDriver& driver, const Case& c, const LatencyOptions& o, Progress& progress) {
  Times times;
  for (int32_t iteration = -o.warmup; iteration < o.iterations; ++iteration) {
    const double start = now_s();
    for (int32_t s = 0; s < c.batch && c.input_len > 0; ++s) driver.prefill(s, c.depth, c.input_len);
    const double prefilled = now_s();
    std::vector<double> steps;
    for (int32_t i = 0; i < o.output_len; ++i) {
      const double begin = now_s();
      driver.decode(c.batch, c.depth + c.input_len + i);
      steps.push_back(now_s() - begin);
    }
    progress.add();
    if (iteration < 0) continue;
    if (c.input_len > 0) times.prefill.push_back(prefilled - start);
    if (steps.empty()) continue;
    const Summary s = summarize(steps);
    times.step_mean.push_back(s.mean);
    times.step_median.push_back(s.p50);
    times.steps.insert(times.steps.end(), steps.begin(), steps.end());
  }
  return times;
}

Json prefill_report(const Case& c, const Times& times) {
  const Summary s = summarize(times.prefill);
  const double tokens = static_cast<double>(c.input_len) * c.batch;
  return {{"tokens", tokens},
          {"seconds", summary_json(s, 1)},
          {"tokens_per_s_best", tokens / s.min},
          {"tokens_per_s_median", tokens / s.p50}};
}

Json decode_report(ModelRuntime& runtime, const Case& c, const LatencyOptions& o, const Times& times, double bandwidth) {
  const Summary means = summarize(times.step_mean), medians = summarize(times.step_median);
  const StepBytes bytes = decode_step_bytes(runtime, c.depth + c.input_len + o.output_len / 2, c.batch);
  return {{"steps", times.steps.size()},
          {"ms_per_step", summary_json(summarize(times.steps), 1e3)},
          {"ms_per_step_best_mean", means.min * 1e3},
          {"ms_per_step_best_median", medians.min * 1e3},
          {"ms_per_step_median", medians.p50 * 1e3},
          {"tokens_per_s_best", c.batch / means.min},
          {"tokens_per_s_median", c.batch / means.p50},
          {"weight_bytes_per_step", bytes.weights},
          {"kv_bytes_per_step", bytes.kv},
          {"bytes_per_token", bytes.total() / c.batch},
          {"bytes_per_s_best", bytes.total() / medians.min},
          {"of_read_bandwidth_best", bytes.total() / medians.min / bandwidth}};
}

void print_case(const Json& r) {
  fmt::print("depth {}  batch {}", r["depth"].get<int>(), r["batch"].get<int>());
  if (r.contains("prefill")) {
    const Json& p = r["prefill"];
    fmt::print("  prefill {} tokens: {:.1f} tokens/s (median {:.1f})", r["input_len"].get<int>(),
               p["tokens_per_s_best"].get<double>(), p["tokens_per_s_median"].get<double>());
  }
  if (r.contains("decode")) {
    const Json& d = r["decode"];
    const Json& ms = d["ms_per_step"];
    fmt::print("  decode: {:.3f} ms/step (p50 {:.3f} p90 {:.3f} p99 {:.3f}), {:.1f} tokens/s, {:.1f} MB/token, {:.0f}% of {}",
               d["ms_per_step_best_median"].get<double>(), ms["p50"].get<double>(), ms["p90"].get<double>(),
               ms["p99"].get<double>(), d["tokens_per_s_best"].get<double>(), d["bytes_per_token"].get<double>() / 1e6,
               d["of_read_bandwidth_best"].get<double>() * 100, "read bandwidth");
    if (d.contains("selection"))  // bytes are those of dense attention: what was not read counts as speed
      fmt::print(" ({}: 1/{:.1f} of K/V read)", d["selection"]["policy"].get<std::string>(), 1 / d["selection"]["bytes_share"].get<double>());
  }
  fmt::print("\n");
  std::fflush(stdout);
}

void check_options(ModelRuntime& runtime, const LatencyOptions& o) {
  const int64_t longest = int64_t{*std::max_element(o.depths.begin(), o.depths.end())} +
                          *std::max_element(o.input_lens.begin(), o.input_lens.end()) + o.output_len;
  const int32_t limit = runtime.model().config().max_positions;
  if (longest > limit)
    throw InputError(fmt::format("--depth + --input-len + --output-len is {} tokens; the model was made for {}", longest, limit));
  if (o.output_len == 0 && *std::max_element(o.input_lens.begin(), o.input_lens.end()) == 0)
    throw InputError("nothing to measure: --input-len and --output-len are both 0");
  if (const auto fault = find_fault(o.selection))
    throw InputError(fmt::format("selection: \"{}\" {}", fault->field, fault->why));
  if (o.selection.epsilon > 0) throw InputError("bench latency measures one budget: --epsilon would move it");
}

}  // namespace

int run_latency(ModelRuntime& runtime, const LatencyOptions& o) {
  check_options(runtime, o);
  std::vector<Case> cases;
  for (int32_t batch : o.batches)
    for (int32_t depth : o.depths)
      for (int32_t input_len : o.input_lens)
        if (input_len > 0 || o.output_len > 0) cases.push_back({depth, batch, input_len});

  BandwidthProbe probe(runtime.pool());
  probe.measure();
  fmt::print("{}\n", describe_runtime_line(runtime));
  const int32_t max_batch = *std::max_element(o.batches.begin(), o.batches.end());
  const int32_t max_depth = *std::max_element(o.depths.begin(), o.depths.end());
  const int32_t max_context = max_depth + *std::max_element(o.input_lens.begin(), o.input_lens.end()) + o.output_len;
  const auto maps = obtain_maps(runtime, o.selection.maps_file, find_policy(o.selection.policy).codes);
  StepDriver driver(runtime.model(), runtime.ops(), max_batch, max_context, o.chunk, o.selection, maps.get());
  if (o.fake_kv && max_depth > 0) driver.fill_by_copy(kFakePrompt);
  std::vector<int32_t> filled(static_cast<size_t>(max_batch), 0);

  std::vector<Json> results;
  {
    Progress progress("iterations", static_cast<int64_t>(cases.size()) * (o.warmup + o.iterations));
    for (const Case& c : cases) {
      for (int32_t s = 0; s < c.batch && !o.fake_kv; ++s) {
        int32_t& have = filled[static_cast<size_t>(s)];
        if (have < c.depth) driver.prefill(s, have, c.depth - have);
        have = std::max(have, c.depth);
      }
      const Times times = measure(driver, c, o, progress);
      const SelectionAccount read = driver.take_account();
      // The machine's speed drifts: the ceiling of this case is what memory gives right after it, or has given before.
      probe.measure();
      Json r = {{"depth", c.depth}, {"batch", c.batch}, {"input_len", c.input_len}, {"output_len", o.output_len}};
      if (c.input_len > 0) r["prefill"] = prefill_report(c, times);
      if (o.output_len > 0) r["decode"] = decode_report(runtime, c, o, times, probe.best());
      if (read.reads > 0) r["decode"]["selection"] = {{"policy", o.selection.policy}, {"bytes_share", read.bytes / read.dense_bytes}};
      progress.clear();
      print_case(r);
      results.push_back(std::move(r));
    }
  }
  fmt::print("read bandwidth with {} threads: {:.1f} GB/s\n", runtime.pool().num_threads(), probe.best() / 1e9);
  if (!o.json.empty()) {
    Json report = {{"benchmark", "latency"},
                   {"runtime", describe_runtime(runtime)},
                   {"fake_kv", o.fake_kv},
                   {"iterations", o.iterations},
                   {"read_bandwidth_bytes_per_s", probe.best()},
                   {"results", results}};
    write_report(o.json, report);
  }
  return 0;
}

}  // namespace tinyserve::cli
