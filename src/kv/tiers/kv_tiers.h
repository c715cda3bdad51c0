#pragma once
// What lies below the cache: host memory, then a file. A page that has a name (prefix_cache.h) and is evicted goes down;
// a request that needs it later gets it back, when that is cheaper than computing it again (tier_cost.h).
//
// A step, on the engine's thread:
//   planning    evicted() notes pages whose place is taken: their bytes stay until the step writes to it. find() says how
//               many pages a newcomer could have from below, or that it should wait while the disk is read; promote()
//               books them in the plan.
//   move()      before the step writes anything: evicted pages are copied down, booked ones up, in runs.
//   end_step()  within a budget, pages that are in the cache only are handed to the disk's thread as well.
// The engine's thread never waits for the disk: reads and writes are jobs of DiskTier's thread.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "kv/kv_report.h"
#include "kv/kv_storage.h"
#include "kv/page_hash.h"
#include "kv/tiers/disk_tier.h"
#include "kv/tiers/page_copier.h"
#include "kv/tiers/promotion.h"
#include "kv/tiers/tier_cost.h"
#include "kv/tiers/tier_index.h"
#include "kv/tiers/tier_stats.h"
#include "kv/tiers/tiers_config.h"

namespace tinyserve {

/// Engine's thread only.
class KvTiers {
 public:
  /// Null when the configuration names no tier. `storage` is the cache's and stays. Throws InputError when a size is too
  /// small for a page; whatever is wrong with the file itself is a log line and no disk tier.
  static std::unique_ptr<KvTiers> make(const TiersConfig& config, ops::Ops& ops, const KvStorage& storage);

  /// The key that pages must be named with for the file's to be found; none: any.
  std::optional<HashKey> hash_key() const;
  /// How the cache's own pages are looked up: the page with a name, or -1. Needed for writing ahead.
  using Lookup = std::function<int32_t(const PageHash&)>;
  void set_lookup(Lookup lookup) { lookup_ = std::move(lookup); }

  // Planning.
  void begin_plan() { promoting_.clear(); }
  /// The cache is about to give the page away.
  void evicted(int32_t page, const PageHash& name);
  /// A page's content is gone and its bytes are not where they could be copied.
  void lost() { ++stats_.pages_lost; }
  struct Found {
    int32_t pages = 0;  ///< of `names`, from the first on, that promote() can bring
    bool wait = false;  ///< ask again later: they are being read, or somebody else is about to bring them into the cache
  };
  /// What there is of the pages `names`, which continue what the cache itself has of sequence `uid`.
  Found find(uint64_t uid, std::span<const PageHash> names, double now_s);
  /// Books pages for the places the cache reserved, right after find() said that they are there. Dropping the promotions
  /// cancels them.
  void promote(uint64_t uid, std::span<const PageHash> names, std::span<const int32_t> pages, std::vector<Promotion>& out);
  /// The sequence has been admitted: `pool_pages` of its pages were in the cache, `missing` full ones were nowhere.
  void admitted(uint64_t uid, int32_t pool_pages, int32_t missing);
  /// The sequence is gone; what is read for it is not wanted any more.
  void forget(uint64_t uid);

  /// Copies down what was evicted and up what was promoted. Before anything else writes to the cache's pages.
  void move(std::span<const Promotion> promotions);
  /// Only the first: to be called before pages are moved about between steps. Never throws: what cannot be copied is lost
  /// to the tiers, that is all.
  void move_down();

  /// The page with this name has been computed.
  void computed(const PageHash& name);
  /// `prompt_rows` of a step's `rows` were prompts'; the forward pass took `seconds`.
  void measured(int64_t prompt_rows, int64_t rows, double seconds);
  void end_step(double now_s);
  /// Hands what waits to be written ahead to the disk without regard to the rate, for `seconds` at most: before the end.
  void flush(double seconds);

  /// Requests wait for the disk.
  bool loading() const { return !loads_.empty(); }
  /// Pages wait to be written ahead or are being written: end_step() should be called, and stats() looked at, now and
  /// then though no step runs.
  bool writing() const { return !ahead_.empty() || (disk_ && disk_->writing()); }
  /// Sleeps until a read ends, `seconds` at most.
  void wait(double seconds);

  TierStats stats() const;
  const TierCost& cost() const { return cost_; }
  /// For F_access. O(1).
  void access(TierAccess& access) const;
  DiskTier* disk() { return disk_.get(); }
  /// TS_CHECKs the host tier's books. For tests, between steps.
  void check_invariants() const;

 private:
  struct Load {  // what is being read for a sequence, or has been and is not used yet
    std::shared_ptr<DiskRead> read;
    PageHash first;  // in in_flight_
    double give_up_at = 0;
    bool counted = false;
  };
  struct Host {
    Host(int32_t num_slots, const PageCopier& copier, TierIndex::OnEvict on_evict)
        : index(num_slots, num_slots, std::move(on_evict)), area(num_slots, copier.tensors()) {}
    TierIndex index;
    HostArea area;
  };

  KvTiers(const TiersConfig& config, ops::Ops& ops, const KvStorage& storage);
  void open_disk();
  int32_t in_host(const PageHash& name) const { return host_ ? host_->index.find(name) : -1; }
  int32_t ready(const Load* load, std::span<const PageHash> names, int32_t& from_disk) const;
  bool start_read(uint64_t uid, std::span<const PageHash> names, int32_t have, double now_s);
  void drop_load(std::unordered_map<uint64_t, Load>::iterator at);
  size_t write_ahead(double budget);
  void down_to_host();
  void down_to_disk();
  void spill_host();

  const TiersConfig config_;
  const int32_t page_size_;
  PageCopier copier_;
  PageHash fingerprint_;
  std::unique_ptr<Host> host_;
  std::unique_ptr<DiskTier> disk_;
  Lookup lookup_;
  TierCost cost_;
  struct Named {
    int32_t at = 0;  // page or slot
    PageHash name;
  };
  std::vector<Named> evicted_;  // from the cache; bytes still there
  std::vector<Named> spilled_;  // from host memory; bytes still there
  struct Hash {
    size_t operator()(const PageHash& name) const { return name.low; }
  };
  std::unordered_map<uint64_t, Load> loads_;
  std::unordered_set<uint64_t> gave_up_;                        // sequences that do not wait for the disk again
  std::unordered_map<PageHash, uint64_t, Hash> in_flight_;      // first page of each load: whose
  std::unordered_set<PageHash, Hash> promoting_;                // first pages of this plan's promotions
  int64_t load_bytes_ = 0;
  std::deque<PageHash> ahead_;  // computed, maybe not on the disk yet
  double ahead_budget_ = 0, last_step_s_ = 0;
  TierStats stats_;
  // Scratch.
  std::vector<PageMove> moves_;
  std::vector<SlotRef> slots_;
  std::vector<int32_t> pages_;
};

}  // namespace tinyserve
