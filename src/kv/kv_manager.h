#pragma once
// Everything about KV pages that needs no model: who holds which page, what contents can be found again, and what is
// done about the order of pages over time. The engine and the replay of traces build the same manager and give it to
// the same scheduler; bytes (KvStorage) are the engine's.
//
// A step: the scheduler plans (reserves pages) and commits; bytes are copied; the model runs; computed() offers full
// pages to the prefix cache; end_step() closes it. All of it costs what it does, never O(num_pages) a step.

#include <cstdint>
#include <memory>

#include "kv/kv_config.h"
#include "kv/page_pool.h"
#include "kv/prefix_cache.h"

namespace tinyserve {

/// Single threaded; outlives every PageRef and PageTable of its pool.
class KvManager {
 public:
  /// `num_pages` > 0 pages of `page_size` > 0 token positions. Throws InputError when the
  /// configuration names what does not exist.
  /// `page_bytes`: K and V of a page over all layers; budgets and reports are in bytes.
  KvManager(const KvConfig& config, int32_t num_pages, int32_t page_size, int64_t page_bytes);
  KvManager(const KvManager&) = delete;
  KvManager& operator=(const KvManager&) = delete;

  PagePool& pool() { return pool_; }
  const PagePool& pool() const { return pool_; }
  /// Null: requests share nothing.
  PrefixCache* prefix() { return prefix_.get(); }
  const PrefixCache* prefix() const { return prefix_.get(); }
  int32_t num_pages() const { return pool_.num_pages(); }
  int32_t page_size() const { return page_size_; }
  const KvConfig& config() const { return config_; }

  /// Tokens [start, start + count) of the sequence behind the table are in its pages now, after a step that read what
  /// came before them.
  void computed(PageTable& table, int32_t start, int32_t count);
  /// The step's results are in the cache and no StepPlan holds pages any more. `now_s` on a steady clock, or a
  /// simulated one.
  void end_step(double now_s);
  /// Steps ended so far.
  uint64_t num_steps() const { return num_steps_; }

  /// Compaction, after end_step() and before the next plan: moves pages in all books and returns which bytes have to be
  /// copied now, within the budget. Then compacted(), or, when copying failed, undo_compaction(). Cached content that makes
  /// room is announced to the pool's listener before. While nothing runs there is nothing to do: all is one free run.
  const MovePlan& compact(double now_s);
  /// The copies of the last compact() are done; it all took so long (0: not measured).
  void compacted(double seconds);
  void undo_compaction(bool displaced_copied) { compactor_.undo(displaced_copied); }
  const CompactionStats& compaction_stats() const { return compactor_.stats(); }
  bool compacting() const { return compactor_.active(); }
  Compactor& compactor() { return compactor_; }
  /// One page moves with all that is known about it: to be used between steps, by whoever copies its bytes. `from` is
  /// held by tables only, `to` is free.
  void relocate(int32_t from, int32_t to) { compactor_.move(from, to); }

  /// Where pages came from, since the start; for F_access.
  void set_tier_access(const TierAccess& access) { tiers_ = access; }
  FragmentationReport fragmentation() const;
  int64_t page_bytes() const { return page_bytes_; }

  /// TS_CHECKs that pool and prefix cache agree. O(num_pages); for tests.
  void check_invariants() const;

 private:
  const KvConfig config_;
  const int32_t page_size_;
  const int64_t page_bytes_;
  PagePool pool_;
  std::unique_ptr<PrefixCache> prefix_;
  Compactor compactor_;
  uint64_t num_steps_ = 0;
  TierAccess tiers_, recent_, seen_;  // since the start; of late; since the start, as of the last window
  double total_fragmentation_ = 0;    // as of the last window
  int64_t credit_bytes_ = 0;          // what compaction may move now
  int64_t moved_bytes_ = 0;           // by the last compact()
  double credit_s_ = 0, last_s_ = -1;
  bool measured_ = true;              // until somebody says that it is not
  double bytes_per_s_ = 0;            // of moves, planning included; 0: not known
};

}  // namespace tinyserve
