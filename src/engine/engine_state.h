#pragma once
// What Engine hides (engine.cc holds the interface and the loop, engine_state.cc what a step does with its results).

#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/batch.h"
#include "engine/engine.h"
#include "engine/memory_plan.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "kv/kv_storage.h"
#include "kv/tiers/kv_tiers.h"
#include "select/policies.h"

namespace tinyserve {

double now_seconds();  ///< steady

struct Engine::State : PrefixListener {
  State(Model& model, ops::Ops& ops, const TokenText& texts, const EngineConfig& config, EngineObserver* observer);

  ~State() override;

  /// The prefix cache gives a page away.
  void on_forget(int32_t page, const PageContent& content) override;
  /// Throws InputError.
  void check(const Request& request) const;
  void add(uint64_t id, Request request, OutputSink sink);
  bool plan_step();
  void run_step();
  bool compact();
  /// Ends requests after trouble that cannot be laid to one of them: all that were to take part in the step.
  void abort_step(const char* why);
  void abort(RequestState& request, const std::string& error);
  /// Forgets requests that are done.
  void reap();
  EngineStats stats() const;

  Model& model;
  ops::Ops& ops;
  const TokenText& texts;
  EngineConfig config;
  EngineObserver* observer;
  EngineObserver silent;
  MemoryPlan memory;
  const int32_t vocab_size;
  KvManager kv;
  KvStorage storage;
  std::unique_ptr<KvTiers> tiers;  // null: none
  std::unique_ptr<Selector> selector;  // null: all attention is dense
  Scheduler scheduler;
  Batch batch;
  Sampler sampler;
  std::unique_ptr<ops::Memory> logits;  // [max_logit_rows, vocab_size], the backend's
  std::vector<float> host_logits;       // the same here, when the backend's memory is elsewhere
  std::unordered_map<uint64_t, std::unique_ptr<RequestState>> requests;
  std::vector<uint64_t> done;  // to be reaped
  std::vector<RequestState*> concerned;  // scratch of abort_step(), which has no memory to spare
  StepPlan plan;
  double now = 0;  // when the current step's tokens came
  uint64_t next_order = 0, next_uid = 1, next_seed = 0;
  EngineStats counters;
  bool moving_pages = false;  // compaction is planning
  TierCost prompt_cost;       // without tiers, which measure for themselves

 private:
  State(Model& model, ops::Ops& ops, const TokenText& texts, const EngineConfig& config, EngineObserver* observer,
        const MemoryPlan& memory);
  void measure(double forward_s);
  void account();
  TierAccess tier_access() const;
  Sequence& add_choice(RequestState& request, int32_t index, ChoiceHistory history);
  const float* advance(const StepItem& item, const float* rows);
  void end_prompt_only(Sequence& sequence);
  void pick_tokens(Sequence& sequence, const float* logits);
  bool accept(Sequence& sequence, int32_t token, const float* logits);
  FinishReason judge(Sequence& sequence, int32_t token, Output& output);
  void fork(Sequence& first, const float* logits);
  void emit(RequestState& request, Sequence* sequence, Output&& output);
};

}  // namespace tinyserve
