#pragma once
// Who computes what in the next step. plan() decides on the host and reserves pages without touching a sequence;
// commit() makes it so; dropping a plan instead gives the pages back.
//
// Order of a step: decodes (sequences with one token to compute) first, so that answers keep flowing; then chunks of
// prompts under way with the rows that are left; then waiting requests, first come first served, while pages and rows
// last. A decode that finds no page preempts the latest sequence, which goes back to the queue (in order of arrival, so
// before all that came later) and recomputes, helped by whatever the prefix cache still has of it. The earliest
// sequence is never preempted and can use the whole pool, so something always advances.

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engine/sequence.h"
#include "kv/growth_predictor.h"
#include "kv/kv_manager.h"
#include "kv/tiers/kv_tiers.h"

namespace tinyserve {

/// One sequence's part in a step.
struct StepItem {
  Sequence* sequence = nullptr;
  int32_t num_tokens = 0;     ///< rows; computed from `start` on
  int32_t start = 0;          ///< first position computed: num_computed, or more after prefix hits
  int32_t first_logical = 0;  ///< logical page at which reserved pages go into the table
  int32_t first_page = 0;     ///< in StepPlan::pages
  int32_t num_pages = 0;
  int32_t num_hits = 0;           ///< of them, the first: found in the prefix cache whole
  int32_t num_promoted = 0;       ///< the next of them: brought from a tier below
  int32_t num_prompt_logits = 0;  ///< rows whose logits score the prompt, from position max(start, first_prompt_logit)
  bool samples = false;           ///< its last row picks a token
  bool admitted = false;          ///< comes from the queue
};

struct StepPlan {
  std::vector<StepItem> items;
  std::vector<PageRef> pages;                       ///< reserved, or shared with the prefix cache
  std::vector<std::pair<int32_t, int32_t>> copies;  ///< copy-on-write and partial hits: source, destination page
  std::vector<PageRef> sources;                     ///< of partial hits, so that nobody is given them in this plan
  std::vector<Promotion> promotions;                ///< pages that come from a tier below
  void clear() { items.clear(), pages.clear(), copies.clear(), sources.clear(), promotions.clear(); }
};

struct SchedulerConfig {
  int32_t max_running = 1;
  int32_t max_step_tokens = 1;
  int32_t max_prefill_with_decodes = 1;  ///< rows of prompts in a step that also decodes
  int32_t max_logit_rows = 1;            ///< more than max_running
  std::optional<HashKey> hash_key = {};  ///< of page names; none: a random one, which no client can know
};

class Scheduler {
 public:
  /// The page size is the manager's. `kv` and `tiers` (null: there are none; then `kv` needs a prefix cache) outlive it.
  Scheduler(const SchedulerConfig& config, KvManager& kv, KvTiers* tiers = nullptr);

  /// Into the queue, by arrival.
  void enqueue(Sequence& sequence);
  /// A fork of a running sequence, its pages shared: runs with it, or waits without pages when max_running are.
  void add_fork(Sequence& sequence);
  /// Out of everything; its pages are released.
  void remove(Sequence& sequence);

  /// The next step; false when there is nothing to do, or all who could do something wait for a tier (KvTiers::loading).
  /// May preempt. `now_s` on the clock of the tiers.
  bool plan(StepPlan& plan, double now_s = 0);
  /// Moves reserved pages into page tables and admitted sequences out of the queue.
  void commit(StepPlan& plan);
  /// The item's K/V are in the cache now: advances num_computed and offers full pages to the prefix cache.
  void computed(const StepItem& item);

  const std::vector<Sequence*>& running() const { return running_; }
  const std::deque<Sequence*>& waiting() const { return waiting_; }
  int32_t num_queued() const { return num_queued_; }  ///< requests that have not been in a step
  uint64_t num_preemptions() const { return num_preemptions_; }
  /// Pages in use when the first sequence was preempted; 0 when none was.
  int32_t used_at_first_preemption() const { return used_at_first_preemption_; }
  uint64_t num_page_waits() const { return num_page_waits_; }  ///< the queue's head found too few pages
  uint64_t num_refused() const { return num_refused_; }  ///< allocations that failed with enough pages free: a fault
  uint64_t prefix_query_tokens() const { return prefix_query_tokens_; }
  uint64_t prefix_hit_tokens() const { return prefix_hit_tokens_; }
  /// TS_CHECKs that pool, tables and queues agree: every reference is a table's. For tests, between steps.
  void check_invariants() const;

 private:
  void plan_decodes(StepPlan& plan);
  void plan_prefills(StepPlan& plan);
  void admit(StepPlan& plan, double now_s);
  bool reserve_for_decode(StepPlan& plan, StepItem& item);
  void add_rows(StepPlan& plan, StepItem item, int32_t budget);
  void preempt_latest();
  int32_t hit_limit(const Sequence& sequence) const;
  int32_t prefix_hits(Sequence& sequence, int32_t first_logical);
  std::span<const PageHash> names_below(Sequence& sequence, int32_t hits);
  PrefixCache::Partial partial_hit(Sequence& sequence, int32_t logical);
  PageHash parent_name(const Sequence& sequence, int32_t logical) const;
  void hash_pages(Sequence& sequence, int32_t count);
  int32_t expected_pages(const Sequence& sequence, int32_t num_pages) const;
  int32_t pages_for(int64_t tokens) const {
    return static_cast<int32_t>((tokens + page_size_ - 1) / page_size_);
  }

  SchedulerConfig config_;
  KvManager& kv_;
  PagePool& pool_;       // the manager's
  PrefixCache* prefix_;  // the manager's; null: no sharing between requests
  KvTiers* tiers_;       // below it; null: none
  const int32_t page_size_;
  PageHasher hasher_;
  GrowthPredictor growth_;
  std::vector<Sequence*> running_;  // by arrival
  std::deque<Sequence*> waiting_;   // by arrival
  std::vector<int32_t> promoted_;  // scratch
  int32_t rows_left_ = 0, prefill_left_ = 0, logits_left_ = 0;
  bool preempted_ = false;
  int32_t num_queued_ = 0;
  int32_t blocked_at_free_ = -1;  // free pages when the head of the queue last found too few; -1: not blocked
  int32_t used_at_first_preemption_ = 0;
  uint64_t num_page_waits_ = 0, num_refused_ = 0;
  uint64_t num_preemptions_ = 0, prefix_query_tokens_ = 0, prefix_hit_tokens_ = 0;
};

}  // namespace tinyserve
