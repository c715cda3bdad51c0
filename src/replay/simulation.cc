#include "replay/simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <memory>
#include <unordered_map>

#include "base/check.h"
#include "base/error.h"
#include "engine/scheduler.h"
#include "replay/pool_sampler.h"
#include "replay/synthetic_tokens.h"

namespace tinyserve::replay {
namespace {

/// Tokens have no text here.
class NoText final : public TokenText {
 public:
  std::string token_bytes(int32_t) const override { return {}; }
  bool is_special(int32_t) const override { return false; }
};

double wall_now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Of this thread: what a busy machine takes away does not count.
double cpu_now_s() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// A request while it is in the scheduler's hands.
struct Live {
  RequestState state;
  int64_t index = 0;   // in the trace
  int64_t place = 0;   // in Simulation::live_
  int32_t answer = 0;  // tokens it will get
  bool first_token_seen = false;
};

class Simulation {
 public:
  Simulation(const Trace& trace, const SimulationConfig& config, const OnProgress& on_progress)
      : trace_(trace),
        config_(config),
        on_progress_(on_progress),
        tokens_(trace, config.seed),
        kv_(config.kv, config.num_pages, config.page_size, config.clock.kv_token_bytes * config.page_size),
        scheduler_({.max_running = config.max_running,
                    .max_step_tokens = config.max_step_tokens,
                    .max_prefill_with_decodes = config.max_prefill_with_decodes,
                    .max_logit_rows = config.max_running + 1,
                    .hash_key = HashKey{config.seed, ~config.seed}},  // names decide what shares a bucket: the same ones again
                   kv_),
        sampler_(pool_, scheduler_, config.page_size) {
    out_.policy = config.kv.placement.policy;
    out_.num_pages = config.num_pages;
    out_.requests = static_cast<int64_t>(trace.requests.size());
    last_arrival_s_ = trace.duration_s() / config.speed;
    sample_interval_s_ = config.num_samples > 0 ? last_arrival_s_ / config.num_samples : 0;
  }

  Measurements run();

 private:
  double arrival_s(int64_t index) const { return trace_.requests[static_cast<size_t>(index)].arrival_s / config_.speed; }
  void take_arrivals();
  void start(int64_t index);
  void step();
  void advance(const StepItem& item);
  void end(Live& live);
  void cancel_those_who_left();
  void compact();
  void report_tiers();
  void take_samples();
  void finish();

  const Trace& trace_;
  const SimulationConfig& config_;
  const OnProgress& on_progress_;
  SyntheticTokens tokens_;
  NoText no_text_;
  KvManager kv_;
  PagePool& pool_ = kv_.pool();
  Scheduler scheduler_;
  PoolSampler sampler_;
  StepPlan plan_;
  std::vector<std::unique_ptr<Live>> live_;
  std::unordered_map<const RequestState*, Live*> by_state_;
  std::vector<std::pair<double, uint64_t>> leaving_;  // heap: when a client leaves, its request's order
  Measurements out_;
  double now_s_ = 0, last_arrival_s_ = 0, sample_interval_s_ = 0, next_sample_s_ = 0;
  int64_t next_arrival_ = 0, done_ = 0;
  uint64_t next_uid_ = 1;
  std::vector<float> ttft_s_;
  std::vector<std::pair<int32_t, float>> usage_;  // pages used, for how long
};

/// What has arrived goes into the scheduler's queue, but never more than can be admitted in one step: admission is in
/// order of arrival, so those behind wait as well in the trace, where they need no memory for their tokens.
void Simulation::take_arrivals() {
  while (next_arrival_ < out_.requests && arrival_s(next_arrival_) <= now_s_ &&
         static_cast<int32_t>(scheduler_.waiting().size()) < config_.max_running)
    start(next_arrival_++);
}

void Simulation::start(int64_t index) {
  const TraceRequest& r = trace_.requests[static_cast<size_t>(index)];
  const int64_t pages = (int64_t{r.prompt} + std::max(r.answer, 1) + config_.page_size - 1) / config_.page_size;
  if (pages > config_.num_pages) {
    ++out_.too_long;
    ++done_;
    return;
  }
  auto live = std::make_unique<Live>();
  live->index = index;
  live->place = static_cast<int64_t>(live_.size());
  live->answer = r.answer;
  RequestState& request = live->state;
  request.id = request.order = static_cast<uint64_t>(index);
  request.num_prompt = r.prompt;
  request.max_tokens = r.answer == 0 && r.cancel_s < 0 ? 0 : std::max(r.answer, r.max_tokens > 0 ? r.max_tokens : config_.max_tokens);
  request.arrival_time = arrival_s(index);
  if (r.salt != 0) request.cache_salt = fmt::format("{:016x}", r.salt);
  request.num_unfinished = 1;
  request.choices.push_back(std::make_unique<Sequence>(request, 0, pool_, ChoiceHistory(request.sampling, {}, {}, 0, 0),
                                                       TextStream(no_text_, request.sampling, nullptr)));
  Sequence& sequence = *request.choices.back();
  sequence.uid = next_uid_++;
  sequence.tokens.reserve(static_cast<size_t>(r.prompt) + static_cast<size_t>(r.answer) + 1);
  tokens_.extend(index, r.prompt, sequence.tokens);
  by_state_.emplace(&request, live.get());
  scheduler_.enqueue(sequence);
  if (r.cancel_s >= 0) {
    leaving_.emplace_back(-(request.arrival_time + r.cancel_s / config_.speed), request.order);
    std::push_heap(leaving_.begin(), leaving_.end());
  }
  live_.push_back(std::move(live));
}

void Simulation::cancel_those_who_left() {
  while (!leaving_.empty() && -leaving_.front().first <= now_s_) {
    const uint64_t order = leaving_.front().second;
    std::pop_heap(leaving_.begin(), leaving_.end());
    leaving_.pop_back();
    const auto found = std::find_if(live_.begin(), live_.end(), [&](auto& live) { return live->state.order == order; });
    if (found != live_.end()) end(**found);
  }
}

void Simulation::end(Live& live) {
  scheduler_.remove(*live.state.choices.front());
  ++out_.completed;
  ++done_;
  by_state_.erase(&live.state);
  const auto place = static_cast<size_t>(live.place);
  std::swap(live_[place], live_.back());
  live_[place]->place = static_cast<int64_t>(place);
  live_.pop_back();
}

void Simulation::advance(const StepItem& item) {
  scheduler_.computed(item);
  Sequence& sequence = *item.sequence;
  if (!item.samples && sequence.remaining() > 0) return;
  Live& live = *by_state_.at(sequence.request);
  if (item.samples && !live.first_token_seen) {
    live.first_token_seen = true;
    ttft_s_.push_back(static_cast<float>(now_s_ - live.state.arrival_time));
  }
  if (item.samples) tokens_.extend(live.index, sequence.num_tokens() + 1, sequence.tokens);
  if (sequence.num_tokens() - live.state.num_prompt < live.answer) return;
  sequence.finished = true;  // as opposed to cancelled: the scheduler learns how long answers become
  end(live);
}

void Simulation::step() {
  for (const StepItem& item : plan_.items) out_.allocated_pages += item.num_pages - (item.start - item.sequence->num_computed) / config_.page_size;
  scheduler_.commit(plan_);
  for (const StepItem& item : plan_.items) {
    const auto pages = item.sequence->pages.pages();
    if (item.admitted || item.num_tokens != 1 || item.num_pages != 1 || item.first_logical == 0) continue;
    if (item.first_logical + 1 != static_cast<int32_t>(pages.size())) continue;
    ++out_.growths;
    out_.contiguous_growths += pages.back() == pages[pages.size() - 2] + 1;
  }
  const double duration_s =
      config_.clock.step_s(plan_.items) + config_.clock.copy_s(static_cast<int64_t>(plan_.copies.size()) * config_.page_size);
  usage_.emplace_back(pool_.num_used(), static_cast<float>(duration_s));
  now_s_ += duration_s;
  out_.busy_s += duration_s;
  ++out_.steps;
  for (const StepItem& item : plan_.items) {
    out_.computed_tokens += item.num_tokens;
    advance(item);
  }
  plan_.clear();
  report_tiers();
  kv_.end_step(now_s_);
  compact();
  if (config_.check_every_step) scheduler_.check_invariants();
}

/// What the engine does after a step: moves pages within a budget. The clock pays for the copies.
void Simulation::compact() {
  const MovePlan& moves = kv_.compact(now_s_);
  const double copy_s = config_.clock.copy_s(static_cast<int64_t>(moves.moves.size() + moves.displaced.size()) * config_.page_size);
  kv_.compacted(copy_s);
  now_s_ += copy_s;
  out_.busy_s += copy_s;
  out_.compaction_s += copy_s;
}

/// Where the prompts' pages came from: found in the pool, or computed.
void Simulation::report_tiers() {
  TierAccess access;
  const auto found = static_cast<double>(scheduler_.prefix_hit_tokens());
  access.pages[TierAccess::kDevice] = found / config_.page_size;
  access.pages[TierAccess::kRecompute] = std::max(0.0, static_cast<double>(scheduler_.prefix_query_tokens()) - found) / config_.page_size;
  access.latency_s[TierAccess::kDevice] = 1e-9 * config_.clock.kv_token_ns * config_.page_size;
  access.latency_s[TierAccess::kRecompute] = 1e-6 * config_.clock.prefill_token_us * config_.page_size;
  kv_.set_tier_access(access);
}

void Simulation::take_samples() {
  if (sample_interval_s_ <= 0 || now_s_ < next_sample_s_ || next_sample_s_ > last_arrival_s_) return;
  next_sample_s_ = (std::floor(now_s_ / sample_interval_s_) + 1) * sample_interval_s_;
  const bool steady = now_s_ >= config_.warm_up_share * last_arrival_s_ && now_s_ <= last_arrival_s_;
  Sample s = sampler_.take(steady);
  s.time_s = now_s_;
  const auto looked_up = static_cast<double>(scheduler_.prefix_query_tokens());
  s.hit_rate = looked_up > 0 ? static_cast<double>(scheduler_.prefix_hit_tokens()) / looked_up : 0;
  const FragmentationReport report = kv_.fragmentation();
  s.f_spatial = report.spatial;
  s.f_temporal = report.temporal;
  s.f_access = report.access;
  s.f_total = report.total;
  out_.samples.push_back(s);
  if (!steady) return;
  ++out_.steady_samples;
  out_.external_fragmentation += s.external_fragmentation;
  out_.slot_utilisation += s.slot_utilisation;
  out_.used_share += s.used_share;
  out_.free_runs += s.free_runs;
  out_.f_spatial += s.f_spatial;
  out_.f_temporal += s.f_temporal;
  out_.f_access += s.f_access;
  out_.f_total += s.f_total;
}

Measurements Simulation::run() {
  const double start_s = wall_now_s(), cpu_start_s = cpu_now_s();
  while (true) {
    take_arrivals();
    cancel_those_who_left();
    if (scheduler_.plan(plan_)) {
      step();
      take_samples();
    } else if (next_arrival_ < out_.requests) {
      now_s_ = std::max(now_s_, arrival_s(next_arrival_));
    } else {
      break;
    }
    if (on_progress_ && (out_.steps & 255) == 0) on_progress_(done_);
  }
  TS_CHECK(live_.empty() && done_ == out_.requests, "a request was lost");
  finish();
  out_.wall_s = wall_now_s() - start_s;
  out_.cpu_s = cpu_now_s() - cpu_start_s;
  if (on_progress_) on_progress_(done_);
  return std::move(out_);
}

Demand summarize_usage(std::vector<std::pair<int32_t, float>>& usage) {
  Demand d;
  if (usage.empty()) return d;
  std::sort(usage.begin(), usage.end());
  double total_s = 0, weighted = 0;
  for (const auto& [pages, s] : usage) total_s += s, weighted += s * static_cast<double>(pages);
  d.mean = weighted / total_s;
  d.peak = usage.back().first;
  double sum_s = 0;
  const std::pair<double, double*> quantiles[] = {{0.5, &d.p50}, {0.9, &d.p90}, {0.99, &d.p99}};
  size_t next = 0;
  for (const auto& [pages, s] : usage) {
    sum_s += s;
    for (; next < 3 && sum_s >= quantiles[next].first * total_s; ++next) *quantiles[next].second = pages;
  }
  for (; next < 3; ++next) *quantiles[next].second = d.peak;
  return d;
}

void Simulation::finish() {
  out_.preemptions = static_cast<int64_t>(scheduler_.num_preemptions());
  if (out_.preemptions > 0) out_.usable_share = static_cast<double>(scheduler_.used_at_first_preemption()) / config_.num_pages;
  out_.page_waits = static_cast<int64_t>(scheduler_.num_page_waits());
  out_.refused = static_cast<int64_t>(scheduler_.num_refused());
  out_.prompt_tokens = static_cast<int64_t>(scheduler_.prefix_query_tokens());
  out_.hit_tokens = static_cast<int64_t>(scheduler_.prefix_hit_tokens());
  const auto page_bytes = static_cast<double>(kv_.page_bytes());
  out_.compaction_bytes = page_bytes * static_cast<double>(kv_.compaction_stats().pages_moved);
  out_.compaction_won_bytes = page_bytes * kv_.compaction_stats().pages_won;
  out_.simulated_s = now_s_;
  out_.demand = summarize_usage(usage_);
  sampler_.summarize(out_);
  if (const auto n = static_cast<double>(out_.steady_samples); n > 0) {
    for (double* sum : {&out_.external_fragmentation, &out_.slot_utilisation, &out_.used_share, &out_.free_runs, &out_.f_spatial,
                        &out_.f_temporal, &out_.f_access, &out_.f_total})
      *sum /= n;
  }
  if (!ttft_s_.empty()) {
    std::sort(ttft_s_.begin(), ttft_s_.end());
    for (const float s : ttft_s_) out_.mean_ttft_s += s;
    out_.mean_ttft_s /= static_cast<double>(ttft_s_.size());
    out_.p99_ttft_s = ttft_s_[(ttft_s_.size() * 99 + 99) / 100 - 1];
  }
}

}  // namespace

Measurements simulate(const Trace& trace, const SimulationConfig& config, const OnProgress& on_progress) {
  if (config.num_pages < 1) throw InputError("the pool must have at least one page");
  if (config.max_step_tokens < config.max_running)
    throw InputError(fmt::format("a step of {} tokens has no room for {} running sequences", config.max_step_tokens, config.max_running));
  return Simulation(trace, config, on_progress).run();
}

int32_t unlimited_pages(const Trace& trace, const SimulationConfig& config) {
  std::vector<int64_t> pages;
  pages.reserve(trace.requests.size());
  for (const TraceRequest& r : trace.requests) pages.push_back((int64_t{r.prompt} + r.answer) / config.page_size + 1);
  const size_t most = std::min(pages.size(), static_cast<size_t>(config.max_running));
  std::nth_element(pages.begin(), pages.begin() + static_cast<std::ptrdiff_t>(most) - 1, pages.end(), std::greater<>());
  int64_t sum = 0;
  for (size_t i = 0; i < most; ++i) sum += pages[i];
  sum += sum / 50 + config.max_running + 1;
  constexpr int64_t kMost = 50'000'000;
  if (sum > kMost)
    throw InputError(fmt::format("the trace's {} largest requests need {} pages, more than the {} a replay can have: "
                                 "give --pages, a larger --page-size or a smaller --max-running", most, sum, kMost));
  return static_cast<int32_t>(sum);
}

}  // namespace tinyserve::replay
