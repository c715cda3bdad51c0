#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "cli/bandwidth_probe.h"
#include "cli/bench_latency.h"
#include "cli/bench_report.h"
#include "cli/bench_serve.h"
#include "cli/bench_throughput.h"
#include "cli/flags.h"
#include "cli/local_server.h"
#include "cli/model_runtime.h"
#include "cli/selection_setup.h"
#include "cli/units.h"

namespace tinyserve::cli {
namespace {

constexpr int32_t kMaxTokens = 1 << 24;
constexpr int32_t kMaxRequests = 1'000'000;

void add_latency(CLI::App& bench, Action& action) {
  struct Flags {
    ModelFlags model;
    LatencyOptions o;
  };
  const auto f = std::make_shared<Flags>();
  CLI::App& app = add_command(bench, "latency", "Time of single steps: prefill and decode at a depth and batch size", action, [f] {
    ModelRuntime runtime(f->model);
    return run_latency(runtime, f->o);
  });
  FlagGroup work(app, "Work");
  work.numbers("--depth", f->o.depths, 0, kMaxTokens, "Tokens in the cache before what is measured; one run for each")
      .numbers("--batch-size", f->o.batches, 1, 4096, "Sequences computed together; one run for each")
      .numbers("--input-len", f->o.input_lens, 0, kMaxTokens, "Prompt tokens prefilled at that depth; one run for each, 0: none")
      .number("--output-len", f->o.output_len, 0, kMaxTokens, "Tokens decoded after the prompt; 0: none")
      .number("--max-step-tokens", f->o.chunk, 1, 65536, "Prompt tokens of one step")
      .number("--warmup", f->o.warmup, 0, 1000, "Iterations thrown away first")
      .number("--iterations", f->o.iterations, 1, 100000, "Iterations measured")
      .flag("--fake-kv", f->o.fake_kv,
            "Make the depth without prefilling it: copy the K/V pages of a 512-token prompt into every page (time does not "
            "depend on their values; each page is its own memory)")
      .text("--json", f->o.json, "FILE", "Write the report there; - is stdout");
  add_selection_flags(work, f->o.selection);
  add_log_flag(work);
  FlagGroup model(app, "Model");
  add_model_flags(model, f->model);
}

void add_throughput(CLI::App& bench, Action& action) {
  struct Flags {
    ModelFlags model;
    EngineConfig engine;
    ThroughputOptions o;
    int64_t seed = 0;
  };
  const auto f = std::make_shared<Flags>();
  CLI::App& app = add_command(bench, "throughput", "Many requests at once through the engine, without HTTP", action, [f] {
    f->o.seed = static_cast<uint64_t>(f->seed);
    ModelRuntime runtime(f->model);
    return run_throughput(runtime, f->engine, f->o);
  });
  FlagGroup work(app, "Work");
  work.number("--requests", f->o.requests, 1, kMaxRequests, "Requests, all queued at the start")
      .number("--input-len", f->o.input_len, 1, kMaxTokens, "Prompt tokens of each (random, so nothing is shared)")
      .number("--output-len", f->o.output_len, 1, kMaxTokens, "Tokens generated for each")
      .number("--warmup", f->o.warmup, 0, 1000, "Requests before the clock starts")
      .number("--seed", f->seed, 0, INT64_MAX, "Of the random prompts")
      .text("--json", f->o.json, "FILE", "Write the report there; - is stdout");
  add_log_flag(work);
  FlagGroup model(app, "Model");
  add_model_flags(model, f->model);
  FlagGroup engine(app, "Engine");
  add_engine_flags(engine, f->engine);
}

void add_serve_load(CLI::App& bench, Action& action) {
  struct Flags {
    ModelFlags model;
    EngineConfig engine;
    LoadOptions o;
    int64_t seed = 0;
    int32_t vocab_size = 0;
    std::string url, json;
  };
  const auto f = std::make_shared<Flags>();
  CLI::App& app = add_command(bench, "serve", "Load on an HTTP server that speaks OpenAI's API, ours or another", action, [f] {
    f->o.seed = static_cast<uint64_t>(f->seed);
    if (f->vocab_size > 0) f->o.vocab_size = f->vocab_size;
    if (!f->url.empty()) {
      f->o.url = f->url;
      return run_serve_load(f->o, "server at " + f->url, f->json);
    }
    ModelRuntime runtime(f->model);
    LocalServer server(runtime, f->engine, f->o.api_key);
    f->o.url = server.url();
    if (f->vocab_size == 0) f->o.vocab_size = runtime.model().config().vocab_size;
    return run_serve_load(f->o, describe_runtime_line(runtime), f->json);
  });
  FlagGroup work(app, "Work");
  work.text("--url", f->url, "URL", "Server to load, without /v1", "one of our own inside this program, with the flags below")
      .text("--served-model-name", f->o.model, "NAME", "Model to ask for", "the first that /v1/models lists")
      .text("--api-key", f->o.api_key, "KEY", "Sent as bearer token", "none")
      .number("--requests", f->o.requests, 1, kMaxRequests, "Requests")
      .number("--concurrency", f->o.concurrency, 1, 4096, "Streams at once; not applied with --request-rate")
      .decimal("--request-rate", f->o.request_rate, 0, 1e6, "Requests a second, at random (Poisson) intervals",
               "as fast as streams end")
      .number("--input-len", f->o.input_len, 1, kMaxTokens, "Prompt tokens of each (random ids, so nothing is shared)")
      .number("--output-len", f->o.output_len, 1, kMaxTokens, "Tokens generated for each; end of text is ignored")
      .number("--vocab-size", f->vocab_size, 0, kMaxTokens, "Prompts are drawn from ids below this",
              fmt::format("{}, or the model's when the server is our own", f->o.vocab_size))
      .number("--warmup", f->o.warmup, 0, 1000, "Requests before the clock starts, one after another")
      .number("--timeout", f->o.timeout_s, 1, 86400, "Seconds a request may take")
      .number("--seed", f->seed, 0, INT64_MAX, "Of prompts and intervals")
      .text("--extra-body", f->o.extra_body, "JSON", "Object merged into every request, for servers with fields of their own")
      .text("--json", f->json, "FILE", "Write the report there; - is stdout");
  add_log_flag(work);
  FlagGroup model(app, "Model, without --url");
  add_model_flags(model, f->model);
  FlagGroup engine(app, "Engine, without --url");
  add_engine_flags(engine, f->engine);
}

void add_bandwidth(CLI::App& bench, Action& action) {
  struct Flags {
    int32_t threads = 0, iterations = 5;
    int64_t size = int64_t{1} << 30;
    std::string json;
  };
  const auto f = std::make_shared<Flags>();
  CLI::App& app = add_command(bench, "bandwidth", "How fast this machine's threads read memory together", action, [f] {
    ThreadPool pool(f->threads);
    const double bandwidth = BandwidthProbe(pool, static_cast<size_t>(f->size)).measure(f->iterations);
    fmt::print("{:.2f} GB/s with {} threads over {}, best of {}\n", bandwidth / 1e9, pool.num_threads(), format_bytes(f->size), f->iterations);
    if (!f->json.empty())
      write_report(f->json, {{"benchmark", "bandwidth"}, {"threads", pool.num_threads()}, {"read_bandwidth_bytes_per_s", bandwidth}});
    return 0;
  });
  FlagGroup work(app, "Work");
  work.number("--threads", f->threads, 0, 1024, "Threads that read", "physical cores")
      .bytes("--size", f->size, 1 << 22, int64_t{1} << 40, "Memory read, well beyond the caches")
      .number("--iterations", f->iterations, 1, 1000, "Passes; the best counts")
      .text("--json", f->json, "FILE", "Write the report there; - is stdout");
}

}  // namespace

void add_bench(CLI::App& root, Action& action) {
  CLI::App& bench = add_command_group(root, "bench", "Measure: latency, throughput, serve, bandwidth");
  add_latency(bench, action);
  add_throughput(bench, action);
  add_serve_load(bench, action);
  add_bandwidth(bench, action);
}

}  // namespace tinyserve::cli
