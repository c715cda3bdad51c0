#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/error.h"
#include "cli/bench_report.h"
#include "cli/flags.h"
#include "cli/model_runtime.h"
#include "cli/progress.h"
#include "cli/units.h"
#include "kv/placement.h"
#include "replay/report.h"
#include "replay/simulation.h"

namespace tinyserve::cli {
namespace {

constexpr const char* kBaseline = "free_queue";  // stands for vLLM, which has nothing but its queue

struct ReplayFlags {
  std::string trace, policy = std::string(placement_names().front()), compare, json, svg, weights, compaction = "default";
  int64_t pages = 0, requests = 0;
  int32_t jobs = static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()));
  double fill = 0;
  std::string clock = "h200";
  double step_us = -1, prefill_us = -1, decode_us = -1, kv_ns = -1;
  std::optional<uint64_t> seed;
  replay::SimulationConfig simulation;
};

std::vector<std::string> policies(const ReplayFlags& f) {
  std::vector<std::string> names;
  const auto known = placement_names();
  if (f.compare == "all") return {known.begin(), known.end()};
  const std::string& list = f.compare.empty() ? f.policy : f.compare;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t comma = std::min(list.find(',', begin), list.size());
    const std::string name = list.substr(begin, comma - begin);
    if (std::find(known.begin(), known.end(), name) == known.end())
      throw InputError(fmt::format("no placement policy is called '{}'; there are {}", name, fmt::join(known, ", ")));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    begin = comma + 1;
  }
  return names;
}

replay::StepClock clock_of(const ReplayFlags& f) {
  replay::StepClock clock = replay::step_clock(f.clock);
  if (f.step_us >= 0) clock.fixed_us = f.step_us;
  if (f.prefill_us >= 0) clock.prefill_token_us = f.prefill_us;
  if (f.decode_us >= 0) clock.decode_token_us = f.decode_us;
  if (f.kv_ns >= 0) clock.kv_token_ns = f.kv_ns;
  return clock;
}

/// One replay a policy, `jobs` at a time: they share nothing but the trace.
std::vector<replay::Measurements> run_all(const replay::Trace& trace, const replay::SimulationConfig& config,
                                          const std::vector<std::string>& names, int32_t jobs, const std::string& label,
                                          const std::function<bool(const std::string&)>& compacts) {
  Progress progress(label, static_cast<int64_t>(names.size() * trace.requests.size()));
  std::mutex mutex;  // of all below
  std::vector<int64_t> done(names.size(), 0);
  std::vector<replay::Measurements> all(names.size());
  std::exception_ptr failure;
  size_t next = 0;
  const auto work = [&] {
    for (std::unique_lock lock(mutex); next < names.size() && !failure;) {
      const size_t i = next++;
      lock.unlock();
      try {
        replay::SimulationConfig own = config;
        own.kv.placement.policy = names[i];
        if (!compacts(names[i])) own.kv.compaction.bytes_per_step = 0;
        all[i] = replay::simulate(trace, own, [&, i](int64_t n) {
          const std::lock_guard guard(mutex);
          progress.add(n - std::exchange(done[i], n));
        });
        lock.lock();
      } catch (...) {
        lock.lock();
        failure = std::current_exception();
      }
    }
  };
  std::vector<std::jthread> threads;
  for (int32_t i = 1; i < std::min<int32_t>(jobs, static_cast<int32_t>(names.size())); ++i) threads.emplace_back(work);
  work();
  threads.clear();
  if (failure) std::rethrow_exception(failure);
  return all;
}

/// The pool's size: as asked for, or such that the trace's demand is the share asked for.
int32_t size_pool(const replay::Trace& trace, const ReplayFlags& f, replay::SimulationConfig config) {
  if (f.pages > 0) return static_cast<int32_t>(f.pages);
  config.num_pages = replay::unlimited_pages(trace, config);
  config.num_samples = 0;
  const replay::Demand demand = run_all(trace, config, {"free_queue"}, 1, "measuring the trace's demand", [](auto&) { return false; }).front().demand;
  const double pages = std::ceil(demand.p99 / f.fill);
  fmt::print("demand       {:.0f} pages for 99% of the time ({:.0f} for half of it, {:.0f} at most); {:.0f}% of {:.0f}\n", demand.p99,
             demand.p50, demand.peak, 100 * f.fill, pages);
  return static_cast<int32_t>(std::max(pages, 1.0));
}

int run(const ReplayFlags& f) {
  if (f.trace.empty()) throw InputError("--trace FILE is missing: the trace to replay");
  if ((f.pages > 0) == (f.fill > 0)) throw InputError("give either --pages N or --fill SHARE: the pool's size");
  const std::vector<std::string> names = policies(f);
  replay::SimulationConfig config = f.simulation;
  config.clock = clock_of(f);
  if (!f.weights.empty()) config.kv.placement.weights = parse_placement_weights(f.weights);
  config.seed = f.seed.value_or(1);
  const replay::Trace trace = replay::load_trace(f.trace, f.requests);
  fmt::print("trace        {} ({}): {} requests in {}, {} tokens of prompts, {} of answers\n", f.trace, trace.format,
             trace.requests.size(), format_duration(trace.duration_s()), format_count(trace.prompt_tokens()),
             format_count(trace.answer_tokens()));
  if (trace.unfinished > 0) fmt::print("             {} more had not ended when the recording did, and are left out\n", trace.unfinished);
  config.num_pages = size_pool(trace, f, config);
  const std::vector<replay::Measurements> all = run_all(trace, config, names, f.jobs, fmt::format("{}", fmt::join(names, ", ")),
                                                       [&f](const std::string& name) {
                                                         return f.compaction == "on" || (f.compaction == "default" && name != kBaseline);
                                                       });
  const replay::Measurements& m = all.front();
  fmt::print("pool         {} pages of {} tokens\n", m.num_pages, config.page_size);
  fmt::print("clock        {} at {}x the trace's pace; busy {:.0f}% of {} simulated\n\n", f.clock, config.speed,
             100 * m.busy_s / m.simulated_s, format_duration(m.simulated_s));
  fmt::print("{}", replay::table(all));
  if (m.too_long > 0) fmt::print("\n{} requests are longer than the pool and were left out\n", m.too_long);
  if (!f.svg.empty()) write_text(f.svg, replay::plot(all));
  if (!f.json.empty()) write_report(f.json, replay::to_json(trace, config, all));
  return 0;
}

}  // namespace

void add_replay(CLI::App& root, Action& action) {
  const auto f = std::make_shared<ReplayFlags>();
  CLI::App& app = add_command(root, "replay", "Drive the page pool with a trace of requests, without a model", action,
                              [f] { return run(*f); });
  replay::SimulationConfig& s = f->simulation;
  FlagGroup what(app, "Trace");
  what.text("--trace", f->trace, "FILE", "Trace to replay: Mooncake's, Azure's or --record-trace's; may be gzipped (required)")
      .number("--requests", f->requests, 0, int64_t{1} << 40, "Only the first so many", "all")
      .decimal("--speed", s.speed, 1e-6, 1e6, "Requests come so many times faster than in the trace");
  add_log_flag(what);
  FlagGroup pool(app, "Pool");
  pool.text("--policy", f->policy, "NAME", "Where pages go")
      .text("--placement-weights", f->weights, "F1,F2,F3,F4,LAMBDA", "What each term of best_fit's objective counts", "its own")
      .text("--compare", f->compare, "NAME,...", "Several policies side by side, or all", "only --policy's")
      .number("--pages", f->pages, 0, 50'000'000, "Pages of the pool", "by --fill")
      .decimal("--fill", f->fill, 0, 1000, "Size the pool so that the demand of 99% of the time is this share of it", "by --pages")
      .number("--page-size", s.page_size, 1, 256, "Tokens per page")
      .choice("--prefix-cache", {"heat", "lru", "off"}, "Share pages between prompts that begin alike; what is evicted first",
              [&s](const std::string& v) { s.kv.prefix.policy = parse_prefix_policy(v); });
  pool.choice("--compaction", {"default", "on", "off"}, "Move pages together between steps; by default with every policy but free_queue",
              [f](const std::string& v) { f->compaction = v; });
  FlagGroup engine(app, "Engine");
  engine.number("--max-running", s.max_running, 1, 1 << 16, "Sequences in a step")
      .number("--max-step-tokens", s.max_step_tokens, 1, 1 << 20, "Tokens in a step")
      .number("--max-prefill-with-decodes", s.max_prefill_with_decodes, 1, 1 << 20, "Prompt tokens in a step that also decodes")
      .number("--max-tokens", s.max_tokens, 1, 1 << 24, "Limit of an answer that clients name, where the trace does not say");
  FlagGroup clock(app, "Clock");
  clock.text("--clock", f->clock, "h200|cpu", "Machine whose prices a step has")
      .decimal("--clock-step-us", f->step_us, -1, 1e9, "Price of a step, instead of the machine's (-1)")
      .decimal("--clock-prefill-us", f->prefill_us, -1, 1e9, "Price of a prompt token (-1: the machine's)")
      .decimal("--clock-decode-us", f->decode_us, -1, 1e9, "Price of a decoded token (-1: the machine's)")
      .decimal("--clock-kv-ns", f->kv_ns, -1, 1e9, "Price of reading a token's K and V (-1: the machine's)");
  FlagGroup report(app, "Report");
  report.text("--json", f->json, "FILE", "Write everything measured there (-: standard output)", "none")
      .text("--svg", f->svg, "FILE", "Draw fragmentation over time there", "none")
      .number("--jobs", f->jobs, 1, 256, "Policies replayed at the same time")
      .number("--samples", s.num_samples, 1, 1 << 20, "Looks at the pool, evenly over the trace")
      .decimal("--warm-up", s.warm_up_share, 0, 0.99, "Share of the trace's time before means are taken")
      .number("--seed", f->seed, "Of the tokens that stand for the trace's text", "1");
}

}  // namespace tinyserve::cli
