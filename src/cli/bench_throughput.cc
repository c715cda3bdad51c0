#include "cli/bench_throughput.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "base/error.h"
#include "cli/bandwidth_probe.h"
#include "cli/bench_report.h"
#include "cli/model_runtime.h"
#include "cli/progress.h"
#include "cli/selection_setup.h"
#include "text/tokenizer.h"

namespace tinyserve::cli {
namespace {

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Collects what the engine reports while the clock runs.
class Times final : public EngineObserver {
 public:
  void on_first_token(double seconds) override { first_token.push_back(seconds); }
  void on_inter_token(double seconds) override { inter_token.push_back(seconds); }
  std::vector<double> first_token, inter_token;
};

Request random_request(std::mt19937_64& random, int32_t vocab_size, int32_t input_len, int32_t output_len) {
  std::uniform_int_distribution<int32_t> token(0, vocab_size - 1);
  Request r;
  r.prompt.resize(static_cast<size_t>(input_len));
  for (int32_t& t : r.prompt) t = token(random);
  r.sampling.temperature = 0;
  r.sampling.ignore_eos = true;
  r.sampling.max_tokens = output_len;
  return r;
}

}  // namespace

int run_throughput(ModelRuntime& runtime, const EngineConfig& base_config, const ThroughputOptions& o) {
  BandwidthProbe probe(runtime.pool());
  probe.measure();
  fmt::print("{}\n", describe_runtime_line(runtime));
  EngineConfig config = engine_config_for(runtime, base_config);
  config.max_queued = std::max(config.max_queued, o.requests);
  if (config.max_context == 0) config.max_context = std::min(runtime.model().config().max_positions, o.input_len + o.output_len);
  const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::load(runtime.folder());
  Times times;
  Engine engine(runtime.model(), runtime.ops(), *tokenizer, config, &times);
  if (o.input_len + o.output_len > engine.max_context())
    throw InputError(fmt::format("--input-len + --output-len is {} tokens; the engine has room for {} per request",
                                 o.input_len + o.output_len, engine.max_context()));

  std::mt19937_64 random(o.seed);
  const int32_t vocab_size = runtime.model().config().vocab_size;
  uint64_t next_id = 1;
  const auto run = [&](int32_t requests, Progress& progress) {
    for (int32_t i = 0; i < requests; ++i)
      engine.add(next_id++, random_request(random, vocab_size, o.input_len, o.output_len), [&progress](Output&& output) {
        if (output.request_done) progress.add();
      });
    while (engine.step()) {
    }
  };
  {
    Progress progress("warm-up", o.warmup);
    run(o.warmup, progress);
  }
  times = Times();
  const EngineStats before = engine.stats();
  const double start = now_s();
  {
    Progress progress("requests", o.requests);
    run(o.requests, progress);
  }
  const double wall_s = now_s() - start;
  const EngineStats after = engine.stats();
  probe.measure();
  const double bandwidth = probe.best();

  const auto generated = static_cast<double>(after.generated_tokens - before.generated_tokens);
  const double prompts = static_cast<double>(o.requests) * o.input_len;
  const auto steps = static_cast<double>(after.steps - before.steps);
  const double weight_bytes = steps * static_cast<double>(runtime.model().weight_bytes());
  const double kv_bytes = generated * (o.input_len + o.output_len / 2.0) * static_cast<double>(runtime.model().kv_shape().token_bytes());
  const double bytes_per_s = (weight_bytes + kv_bytes) / wall_s;
  const Summary ttft = summarize(times.first_token), itl = summarize(times.inter_token);
  fmt::print("{} requests of {} in, {} out in {:.2f} s: {:.2f} requests/s, {:.1f} output tokens/s, {:.1f} tokens/s in all\n",
             o.requests, o.input_len, o.output_len, wall_s, o.requests / wall_s, generated / wall_s, (generated + prompts) / wall_s);
  fmt::print("time to first token, ms: {}\n", summary_line(ttft, 1e3));
  fmt::print("between tokens, ms:      {}\n", summary_line(itl, 1e3));
  fmt::print("{:.0f} steps, {:.1f} output tokens a step, {} preemptions; read per output token: {:.2f} MB of weights, {:.2f} MB of K/V; "
             "{:.0f}% of the read bandwidth ({:.1f} GB/s)\n",
             steps, generated / steps, after.preemptions - before.preemptions, weight_bytes / generated / 1e6,
             kv_bytes / generated / 1e6, bytes_per_s / bandwidth * 100, bandwidth / 1e9);
  if (!o.json.empty()) {
    const Json report = {{"benchmark", "throughput"},
                         {"runtime", describe_runtime(runtime)},
                         {"requests", o.requests},
                         {"input_len", o.input_len},
                         {"output_len", o.output_len},
                         {"wall_s", wall_s},
                         {"requests_per_s", o.requests / wall_s},
                         {"output_tokens_per_s", generated / wall_s},
                         {"total_tokens_per_s", (generated + prompts) / wall_s},
                         {"steps", steps},
                         {"preemptions", after.preemptions - before.preemptions},
                         {"ttft_ms", summary_json(ttft, 1e3)},
                         {"itl_ms", summary_json(itl, 1e3)},
                         {"weight_bytes_per_output_token", weight_bytes / generated},
                         {"kv_bytes_per_output_token", kv_bytes / generated},
                         {"read_bandwidth_bytes_per_s", bandwidth},
                         {"of_read_bandwidth", bytes_per_s / bandwidth}};
    write_report(o.json, report);
  }
  return 0;
}

}  // namespace tinyserve::cli
