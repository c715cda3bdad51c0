#include "engine/engine_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "engine/sampling_params.h"

namespace tinyserve {
namespace {

constexpr int64_t kLogitBytes = int64_t{32} << 20;  // bounds what scoring a prompt takes, whatever the vocabulary

void check_selection(const EngineConfig& config) {
  const SelectionConfig& s = config.selection;
  const Policy& policy = find_policy(s.policy);
  if (!policy.serves) throw InputError(fmt::format("the policy '{}' is for evaluation only; the server has: {}", s.policy, fmt::join(policy_names(true), ", ")));
  if (s.budget < 1 || s.coded < 0 || s.from < 0 || s.fine_divisor < 1 || s.sinks < 0 || s.recent < 0)
    throw InputError("selection: the budget must be at least 1 token, other sizes must not be negative");
  if (const auto fault = find_fault(s)) throw InputError(fmt::format("selection: \"{}\" {}", fault->field, fault->why));
  if (policy.codes && config.page_size != ops::kCodePage)
    throw InputError(fmt::format("the policy '{}' needs pages of {} tokens, not {}", s.policy, ops::kCodePage, config.page_size));
  if (policy.codes && !config.maps) throw InputError(fmt::format("the policy '{}' needs maps of the model's keys", s.policy));
}

/// With what else pages' bytes depend on.
TiersConfig tiers_config(const EngineConfig& config) {
  TiersConfig tiers = config.tiers;
  if (!code_shape(config).layers.empty()) tiers.fingerprint += " codes " + config.maps->digest();
  return tiers;
}

EngineConfig checked(EngineConfig config) {
  if (config.max_step_tokens < 1 || config.max_step_tokens > 1 << 20)
    throw InputError(fmt::format("tokens per step must be between 1 and {}, got {}", 1 << 20, config.max_step_tokens));
  if (config.max_running < 1)
    throw InputError(fmt::format("running sequences must be at least 1, got {}", config.max_running));
  if (config.max_prefill_with_decodes < 1)
    throw InputError(fmt::format("prompt tokens per step must be at least 1, got {}", config.max_prefill_with_decodes));
  if (config.max_queued < 1)
    throw InputError(fmt::format("the queue must hold at least 1 request, got {}", config.max_queued));
  if (config.tiers.any() && !config.kv.prefix.enabled())
    throw InputError("tiers below the K/V pages keep what the prefix cache knows: they need --prefix-cache heat or lru");
  if (config.tiers.host_bytes < 0 || config.tiers.disk_bytes < 0 || config.tiers.disk_write_rate < 0)
    throw InputError("sizes and rates of tiers must not be negative");
  check_selection(config);
  config.max_running = std::min(config.max_running, config.max_step_tokens);  // each may decode in one step
  return config;
}

SchedulerConfig scheduler_config(const EngineConfig& config, int32_t vocab_size) {
  const int64_t rows = std::min<int64_t>(kLogitBytes / 4 / vocab_size, config.max_step_tokens);
  return {.max_running = config.max_running,
          .max_step_tokens = config.max_step_tokens,
          .max_prefill_with_decodes = config.max_prefill_with_decodes,
          .max_logit_rows = static_cast<int32_t>(std::max<int64_t>(rows, config.max_running + 1))};
}

/// What an answer's audit draws by: its seed, else always the same, and its prompt, so that a greedy answer whose
/// budget follows its audit can be repeated.
uint64_t audit_seed(const Request& request) {
  uint64_t seed = request.sampling.seed.value_or(0);
  for (const int32_t token : request.prompt) seed = (seed ^ static_cast<uint32_t>(token)) * 0x100000001B3u;  // FNV-1a
  return seed;
}

bool contains(const std::vector<int32_t>& list, int32_t token) {
  return std::find(list.begin(), list.end(), token) != list.end();
}

const char* reason_name(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : reason == FinishReason::kLength ? "length" : "abort";
}

}  // namespace

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Engine::State::State(Model& m, ops::Ops& o, const TokenText& t, const EngineConfig& c, EngineObserver* obs)
    : State(m, o, t, checked(c), obs,
            plan_memory(m.kv_shape(), m.config().max_positions, static_cast<int64_t>(m.weight_bytes()), checked(c),
                        available_memory(), code_shape(c))) {}

Engine::State::State(Model& m, ops::Ops& o, const TokenText& t, const EngineConfig& c, EngineObserver* obs,
                     const MemoryPlan& plan)
    : model(m),
      ops(o),
      texts(t),
      config(c),
      observer(obs ? obs : &silent),
      memory(plan),
      vocab_size(m.config().vocab_size),
      kv(c.kv, plan.num_pages, c.page_size, plan.kv_page_bytes),
      storage(o, m.kv_shape(), c.page_size, plan.num_pages, code_shape(c)),
      tiers(KvTiers::make(tiers_config(c), o, storage)),
      selector(make_selector({.ops = o, .config = c.selection, .maps = c.maps.get()})),
      scheduler(scheduler_config(c, vocab_size), kv, tiers.get()),
      batch(c.page_size, c.max_step_tokens, c.max_running, scheduler_config(c, vocab_size).max_logit_rows,
            (plan.max_context + c.page_size - 1) / c.page_size),
      sampler(vocab_size) {
  const int64_t logit_rows = scheduler_config(c, vocab_size).max_logit_rows;
  logits = ops.allocate(static_cast<size_t>(logit_rows * vocab_size) * sizeof(float));
  if (!ops.on_host()) host_logits.resize(logit_rows * vocab_size);
  model.reserve(c.max_step_tokens, logit_rows, c.max_running, plan.max_context);
  concerned.reserve(c.max_running + 1);
  std::random_device device;
  next_seed = uint64_t{device()} << 32 | device();
  if (!tiers) return;
  tiers->set_lookup([this](const PageHash& name) { return kv.prefix()->find(name); });
  kv.prefix()->set_listener(this);
}

Engine::State::~State() {
  constexpr double kFlush_s = 5;
  if (!tiers) return;
  kv.prefix()->set_listener(nullptr);
  tiers->move_down();
  tiers->flush(kFlush_s);
}

void Engine::State::on_forget(int32_t page, const PageContent& content) {
  if (moving_pages && kv.compactor().touched(page))
    tiers->lost();
  else
    tiers->evicted(page, content.name);
}

void Engine::State::check(const Request& request) const {
  validate(request, vocab_size, memory.max_context);
  if (const auto fault = find_fault(config.selection, request.selection))
    throw InputError(fmt::format("selection: \"{}\" {}", fault->field, fault->why));
}

void Engine::State::add(uint64_t id, Request input, OutputSink sink) {
  check(input);
  if (scheduler.num_queued() >= config.max_queued)
    throw QueueFull(fmt::format("{} requests are waiting; ask again later", config.max_queued));
  TS_CHECK(!requests.contains(id), "request ids are unique");
  auto request = std::make_unique<RequestState>();
  request->id = id;
  request->order = next_order++;
  request->sampling = std::move(input.sampling);
  request->cache_salt = std::move(input.cache_salt);
  request->num_prompt = static_cast<int32_t>(input.prompt.size());
  request->max_tokens = request->sampling.max_tokens.value_or(memory.max_context - request->num_prompt);
  request->terms = terms_of(config.selection, input.selection);
  request->audit_seed = audit_seed(input);
  request->seed = request->sampling.seed.value_or(next_seed += 0x9E3779B97F4A7C15u);
  if (!request->sampling.stop.empty()) request->stops = std::make_shared<const StopSet>(request->sampling.stop);
  request->sink = std::move(sink);
  request->arrival_time = now_seconds();
  request->num_unfinished = request->sampling.n;
  const auto& eos = model.config().eos_token_ids;
  Sequence& first = add_choice(*request, 0, ChoiceHistory(request->sampling, input.prompt, eos, request->seed, 0));
  first.tokens = std::move(input.prompt);
  done.reserve(requests.size() + 1);  // so that ending a request needs no memory
  const auto at = requests.emplace(id, std::move(request)).first;
  try {
    scheduler.enqueue(first);
  } catch (...) {
    requests.erase(at);
    throw;
  }
}

Sequence& Engine::State::add_choice(RequestState& request, int32_t index, ChoiceHistory history) {
  request.choices.push_back(std::make_unique<Sequence>(request, index, kv.pool(), std::move(history),
                                                       TextStream(texts, request.sampling, request.stops)));
  Sequence& choice = *request.choices.back();
  choice.uid = next_uid++;
  choice.audit = Audit(request.audit_seed);
  if (request.terms.epsilon > 0) choice.budget = BudgetControl(request.terms.epsilon, request.terms.exact);
  return choice;
}

bool Engine::State::plan_step() {
  while (true) {
    try {
      return scheduler.plan(plan, now_seconds());
    } catch (const std::exception& e) {
      abort_step(e.what());
    }
  }
}

void Engine::State::run_step() {
  const double start = now_seconds();
  for (const StepItem& item : plan.items) {
    if (!item.sequence->request->scheduled) observer->on_queue_time(start - item.sequence->request->arrival_time);
  }
  try {
    scheduler.commit(plan);
    if (tiers) tiers->move(plan.promotions);
    storage.copy_pages(plan.copies);
    Step step = batch.build(plan);
    step.selector = selector.get();
    if (!selector) step.selections = {};
    const double begin = now_seconds();
    model.forward(step, storage.layers(), logits->as<float>());
    if (!ops.on_host())
      ops.download(host_logits.data(), logits->data, step.logit_rows.size() * vocab_size * sizeof(float));
    measure(now_seconds() - begin);
    account();
    plan.promotions.clear();
  } catch (const std::exception& e) {
    return abort_step(e.what());
  }
  now = now_seconds();
  const float* rows = ops.on_host() ? logits->as<float>() : host_logits.data();
  for (const StepItem& item : plan.items) rows = advance(item, rows);
  kv.set_tier_access(tier_access());
  kv.end_step(now);
  compact();
  if (tiers) tiers->end_step(now);
  ++counters.steps;
}

/// Moves pages between steps, when KvManager thinks that it pays; true when any moved.
bool Engine::State::compact() {
  if (config.kv.compaction.bytes_per_step <= 0) return false;
  const double start = now_seconds();
  bool displaced_copied = false;
  try {
    moving_pages = true;
    const MovePlan& moves = kv.compact(start);
    moving_pages = false;
    if (tiers) tiers->move_down();
    if (!moves.empty()) {
      storage.copy_pages(moves.displaced, config.kv.compaction.before_copy);
      displaced_copied = true;
      storage.copy_pages(moves.moves, config.kv.compaction.before_copy);
    }
    kv.compacted(now_seconds() - start);
    return !moves.empty();
  } catch (const std::exception& e) {
    moving_pages = false;
    kv.undo_compaction(displaced_copied);
    log_error(fmt::format("moving K/V pages failed: {}", e.what()));
    return false;
  }
}

/// What a step's forward pass took says what prompts cost.
void Engine::State::measure(double forward_s) {
  int64_t rows = 0, prompt_rows = 0;
  for (const StepItem& item : plan.items) {
    rows += item.num_tokens;
    if (item.num_tokens > 1) prompt_rows += item.num_tokens;
  }
  if (tiers)
    tiers->measured(prompt_rows, rows, forward_s);
  else if (mostly_prompts(prompt_rows, rows))
    prompt_cost.computed(rows, forward_s);
}

/// What selected positions read goes to their requests.
void Engine::State::account() {
  if (!selector) return;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const StepItem& item = plan.items[i];
    const SelectionAccount& read = selector->accounts()[i];
    item.sequence->request->selection.add(read);
    counters.selection.add(read);
    item.sequence->num_accounted = std::max(item.sequence->num_accounted, item.start + item.num_tokens);
    const Audit::Recent recent = item.sequence->audit.take_recent();
    if (item.sequence->budget.active()) item.sequence->budget.observe(recent);
  }
}

/// Where prompts' pages came from. A page that is in place costs no time.
TierAccess Engine::State::tier_access() const {
  const int32_t page_size = kv.page_size();
  TierAccess a;
  if (!tiers) {
    const auto hits = static_cast<double>(scheduler.prefix_hit_tokens());
    a.pages[TierAccess::kDevice] = hits / page_size;
    a.pages[TierAccess::kRecompute] = std::max(0.0, static_cast<double>(scheduler.prefix_query_tokens()) - hits) / page_size;
    a.latency_s[TierAccess::kRecompute] = prompt_cost.compute_s(page_size);
    return a;
  }
  tiers->access(a);
  return a;
}

/// Takes an item's results; returns where the next item's logits begin.
const float* Engine::State::advance(const StepItem& item, const float* rows) {
  const float* next = rows + static_cast<int64_t>(item.num_prompt_logits + item.samples) * vocab_size;
  Sequence& sequence = *item.sequence;
  RequestState& request = *sequence.request;
  if (sequence.finished) return next;
  try {
    scheduler.computed(item);
    counters.prompt_tokens += std::max(0, std::min(sequence.num_computed, request.num_prompt) - item.start);
    for (int32_t i = 0; i < item.num_prompt_logits; ++i, rows += vocab_size) {
      const int32_t scored = sequence.tokens[++request.num_scored];
      request.prompt_logprobs.push_back(sampler.logprob(rows, scored, request.sampling.prompt_logprobs));
    }
    if (item.samples)
      pick_tokens(sequence, rows);
    else if (sequence.remaining() == 0)
      end_prompt_only(sequence);
  } catch (const std::exception& e) {
    abort(request, e.what());
  }
  return next;
}

/// max_tokens is 0: every choice ends where it begins.
void Engine::State::end_prompt_only(Sequence& sequence) {
  RequestState& request = *sequence.request;
  sequence.finished = true;
  scheduler.remove(sequence);
  for (int32_t i = 0; i < request.sampling.n; ++i) {
    Output output;
    output.index = i;
    output.finish = FinishReason::kLength;
    emit(request, nullptr, std::move(output));
  }
}

void Engine::State::pick_tokens(Sequence& sequence, const float* row) {
  const RequestState& request = *sequence.request;
  const bool forks = request.sampling.n > 1 && request.choices.size() == 1;
  // The forks share the pages the first choice has now, whatever becomes of it.
  if (forks)
    fork(sequence, row);
  else
    accept(sequence, sampler.pick(row, request.sampling, sequence.history), row);
}

void Engine::State::fork(Sequence& first, const float* row) {
  RequestState& request = *first.request;
  request.choices.reserve(request.sampling.n);
  for (int32_t i = 1; i < request.sampling.n; ++i) {
    Sequence& choice = add_choice(request, i, first.history.fork(i));
    choice.tokens = first.tokens;
    choice.hashes = first.hashes;
    choice.pages.share_all(first.pages);
    choice.num_computed = first.num_computed;
  }
  for (auto& choice : request.choices) {
    const bool goes_on = accept(*choice, sampler.pick(row, request.sampling, choice->history), row);
    if (request.num_unfinished == 0) return;  // all done, or the client is gone
    if (goes_on && choice.get() != &first) scheduler.add_fork(*choice);
  }
}

/// Adds a picked token to its choice; false when that ended it.
bool Engine::State::accept(Sequence& sequence, int32_t token, const float* row) {
  RequestState& request = *sequence.request;
  Output output;
  output.index = sequence.index;
  output.token_ids.push_back(token);
  if (request.sampling.logprobs >= 0) output.logprobs.push_back(sampler.logprob(row, token, request.sampling.logprobs));
  sequence.tokens.push_back(token);
  sequence.history.add(token);
  sequence.audit.follow(token);
  ++request.num_generated;
  ++counters.generated_tokens;
  output.finish = judge(sequence, token, output);
  if (output.finish != FinishReason::kNone) {
    sequence.text.finish();
    sequence.finished = true;
    scheduler.remove(sequence);
  }
  output.text = sequence.text.take();
  emit(request, &sequence, std::move(output));
  return !sequence.finished;
}

/// Does this token end the choice? In vLLM's order: EOS, stop token, stop string, length.
FinishReason Engine::State::judge(Sequence& sequence, int32_t token, Output& output) {
  const SamplingParams& params = sequence.request->sampling;
  const int32_t generated = sequence.history.num_generated();
  const bool may_stop = generated > params.min_tokens;
  const bool eos = may_stop && !params.ignore_eos && contains(model.config().eos_token_ids, token);
  const bool stop_token = may_stop && !eos && contains(params.stop_token_ids, token);
  if (eos || stop_token) {
    if (params.include_stop_in_output) sequence.text.add(token, false);
    if (stop_token) output.stop_reason = token;
    return FinishReason::kStop;
  }
  if (const std::string* stop = sequence.text.add(token, may_stop)) {
    output.stop_reason = *stop;
    return FinishReason::kStop;
  }
  return generated >= sequence.request->max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

void Engine::State::emit(RequestState& request, Sequence* sequence, Output&& output) {
  output.request_id = request.id;
  if (!output.token_ids.empty()) {
    if (sequence->history.num_generated() > 1)
      observer->on_inter_token(now - sequence->last_token_time);
    else if (!request.any_output)
      observer->on_first_token(now - request.arrival_time);
    sequence->last_token_time = now;
  }
  if (!request.any_output) {
    request.any_output = output.first = true;
    output.prompt_tokens = request.num_prompt;
    output.cached_prompt_tokens = request.cached_tokens;
    output.prompt_logprobs = std::move(request.prompt_logprobs);
  }
  if (output.finish != FinishReason::kNone && --request.num_unfinished == 0) {
    output.request_done = true;
    for (const auto& choice : request.choices) request.selection.audit.add(choice->audit.sums());
    counters.selection.audit.add(request.selection.audit);
    output.selection = request.selection;
    observer->on_finish(now_seconds() - request.arrival_time, request.num_prompt, request.num_generated,
                        reason_name(output.finish));
    done.push_back(request.id);
  }
  if (request.sink) request.sink(std::move(output));
}

void Engine::State::abort(RequestState& request, const std::string& error) {
  if (!error.empty()) log_error(fmt::format("request {} ends early: {}", request.id, error));
  for (auto& choice : request.choices) scheduler.remove(*choice);
  for (int32_t i = 0; i < request.sampling.n; ++i) {
    const bool exists = i < static_cast<int32_t>(request.choices.size());
    if (exists && std::exchange(request.choices[i]->finished, true)) continue;
    if (request.num_unfinished == 0) continue;
    try {
      Output output;
      output.index = i;
      output.finish = FinishReason::kAbort;
      output.error = error;
      emit(request, nullptr, std::move(output));
    } catch (const std::exception& e) {
      log_error(fmt::format("request {}: its receiver failed: {}", request.id, e.what()));
    }
  }
}

void Engine::State::abort_step(const char* why) {
  concerned.clear();
  for (const StepItem& item : plan.items) concerned.push_back(item.sequence->request);
  if (concerned.empty() && !scheduler.waiting().empty()) concerned.push_back(scheduler.waiting().front()->request);
  if (concerned.empty() && !scheduler.running().empty()) concerned.push_back(scheduler.running().back()->request);
  plan.clear();
  std::sort(concerned.begin(), concerned.end());
  concerned.erase(std::unique(concerned.begin(), concerned.end()), concerned.end());
  for (RequestState* request : concerned) abort(*request, why);
}

void Engine::State::reap() {
  for (uint64_t id : done) requests.erase(id);
  done.clear();
}

EngineStats Engine::State::stats() const {
  EngineStats s = counters;
  s.running = static_cast<int64_t>(scheduler.running().size());
  s.waiting = static_cast<int64_t>(scheduler.waiting().size());
  s.queued = scheduler.num_queued();
  s.pages_total = kv.pool().num_pages();
  s.pages_used = kv.pool().num_used();
  s.pages_cached = kv.pool().num_cached();
  s.prefix_query_tokens = scheduler.prefix_query_tokens();
  s.prefix_hit_tokens = scheduler.prefix_hit_tokens();
  s.preemptions = scheduler.num_preemptions();
  s.fragmentation = kv.fragmentation();
  s.compaction = kv.compaction_stats();
  if (tiers) s.tiers = tiers->stats();
  return s;
}

}  // namespace tinyserve
