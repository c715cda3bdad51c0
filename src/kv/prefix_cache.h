#pragma once
// Pages by content, and which of the unreferenced ones to give up first.
//
// Names chain (page_hash.h), so the indexed pages form trees: the pages that follow a page in some sequence are its
// children. A hit needs every page before it, so leaves go first: a page is offered for eviction when no page in the
// pool follows it. Whoever overwrites a page out of turn (a placement that wants its neighbours) leaves its children
// behind as orphans, which nobody can find: they go before all others, unless their parent comes back first.

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "kv/ghost_table.h"
#include "kv/heat_order.h"
#include "kv/page_hash.h"
#include "kv/page_lists.h"
#include "kv/page_pool.h"
#include "kv/reuse_model.h"

namespace tinyserve {

enum class PrefixPolicy : uint8_t {
  kOff,   ///< requests share no pages
  kLru,   ///< the longest unreferenced goes first
  kHeat,  ///< what is least likely to be asked for again, as measured, goes first (reuse_model.h)
};

/// "off", "lru" or "heat". Throws InputError.
PrefixPolicy parse_prefix_policy(std::string_view name);
const char* prefix_policy_name(PrefixPolicy policy);

struct PrefixConfig {
  PrefixPolicy policy = PrefixPolicy::kHeat;
  bool enabled() const { return policy != PrefixPolicy::kOff; }
};

/// What a page is entered as.
struct PageContent {
  PageHash name;
  PageHash parent;                   ///< name of the page before it, or of the root of its chain
  bool first = false;                ///< the parent is a root
  bool answer = false;               ///< ends in tokens the model wrote
  std::span<const int32_t> tokens = {};  ///< [page_size], or empty: then it is no source of partial hits
};

struct PrefixStats {
  uint64_t inserted = 0;   ///< pages entered
  uint64_t evicted = 0;    ///< pages that left because their place was taken
  uint64_t orphaned = 0;   ///< pages that lost the page before them
  uint64_t returned = 0;   ///< pages entered whose name had been evicted not long ago
};

/// Told of every content that is lost. For tiers below the pool.
class PrefixListener {
 public:
  virtual ~PrefixListener() = default;
  /// The page's bytes are whole until the next step writes.
  virtual void on_forget(int32_t page, const PageContent& content) = 0;
};

/// Pages in use can be found as well as unreferenced ones: requests that run at the same time share. Memory is fixed:
/// some 120 bytes a page and its tokens. Single threaded.
class PrefixCache final : public EvictionListener {
 public:
  /// Registers itself with the pool, which outlives it. `page_size` 0: tokens are not kept, there are no partial hits.
  explicit PrefixCache(PagePool& pool, int32_t page_size = 0, const PrefixConfig& config = {});
  ~PrefixCache() override;

  /// The page with this content, or -1. Valid until the next allocation unless shared.
  int32_t find(const PageHash& name) const;
  /// The page whose tokens begin most like `tokens`, among the latest kMaxCandidates that follow `parent`.
  struct Partial {
    int32_t page = -1;   ///< -1: none
    int32_t length = 0;  ///< tokens in common
  };
  Partial find_partial(const PageHash& parent, bool first, std::span<const int32_t> tokens) const;
  static constexpr int32_t kMaxCandidates = 16;

  /// Enters a full, computed page that the caller holds. The first page of a content stays; a second one is not
  /// entered. A page has one name.
  void insert(const PageContent& content, int32_t page);
  /// A request was given this page: what heat counts.
  void used(int32_t page);
  /// Forgets everything.
  void clear();
  int32_t size() const { return size_; }
  const PrefixStats& stats() const { return stats_; }
  const PrefixConfig& config() const { return config_; }
  void set_listener(PrefixListener* listener) { listener_ = listener; }

  /// The unreferenced page to give up first, or -1. O(1) amortised.
  int32_t coldest() override;
  int32_t coldest_after(int32_t page) const override;
  /// f4: what overwriting an unreferenced page costs, in uses expected while as many pages are written as the pool has.
  /// A page that others in the pool follow costs kInner times as much.
  float price(int32_t page) const override;
  static constexpr float kInner = 4;
  /// Indexed pages that follow this one.
  bool has_children(int32_t page) const { return !children_.empty(page); }
  bool indexed(int32_t page) const { return pages_[page].indexed; }
  const PageHash& name(int32_t page) const { return pages_[page].name; }

  /// The content of the used page `from` is in `to` now, which has none of its own (PagePool::relocate).
  void relocate(int32_t from, int32_t to);

  void on_evict(int32_t page) override;
  void on_free(int32_t page) override;
  void on_reuse(int32_t page) override;
  /// TS_CHECKs that trees, lists and marks agree with the pool. O(num_pages); for tests.
  void check_invariants() const;

 private:
  struct Page {
    PageHash name, parent_name;
    int32_t next = -1;    // of the same bucket
    int32_t parent = -1;  // page, where it is in the pool
    uint32_t since = 0;   // epoch from which it waits
    uint8_t kind = 0;     // while it waits
    uint8_t uses = 0;     // up to 8
    bool answer : 1 = false, first : 1 = false, orphan : 1 = false, has_tokens : 1 = false;
    bool waiting : 1 = false;  // the model counts it
    bool touched : 1 = false;  // used since it last waited
    bool indexed : 1 = false;
  };

  int32_t* bucket(const PageHash& name) { return &buckets_[name.low & mask_]; }
  int32_t root_list(const PageHash& root) const { return pool_.num_pages() + static_cast<int32_t>(root.high & family_mask_); }
  int32_t orphan_list(const PageHash& parent) const {
    return pool_.num_pages() + static_cast<int32_t>(family_mask_ + 1 + (parent.high & family_mask_));
  }
  std::span<const int32_t> tokens(int32_t page) const;
  PageContent content(int32_t page) const;
  bool listed(int32_t page) const { return heat_ ? heat_->contains(page) : lru_.contains(page); }
  void offer(int32_t page);
  void withdraw(int32_t page);
  void remove(int32_t page);
  void set_orphan(int32_t root, bool orphan);

  PagePool& pool_;
  const PrefixConfig config_;
  const int32_t page_size_;
  const uint64_t mask_, family_mask_;
  std::vector<int32_t> buckets_;  // [power of two] first page of the chain, -1: none
  std::vector<Page> pages_;       // [num_pages]
  std::vector<int32_t> tokens_;   // [num_pages, page_size]
  PageLists children_;            // lists: of each page; first pages by root; orphans by their parent's name
  ReuseModel model_;
  GhostTable ghosts_;
  PageLists lru_;                    // with kLru: unreferenced pages in order of release
  std::unique_ptr<HeatOrder> heat_;  // with kHeat
  int32_t size_ = 0;
  PrefixStats stats_;
  PrefixListener* listener_ = nullptr;
  std::vector<int32_t> stack_;  // scratch
};

}  // namespace tinyserve
