#pragma once
// The physical pages of the KV cache: who refers to them, and which are free.
//
//            allocate                     release of the last reference
//   empty ------------> used (count > 0) -------------------------------> cached (content indexed) or empty
//     ^                   ^                                                  |
//     |                   +------------------- share (prefix hit) -----------+
//     +-------------------------------- eviction: allocate, forget ----------+
//
// Heat (f4 of ALGORITHMS section 2) is how often a page's content was asked for, each time counting less the longer ago:
// sum over uses of 2^-(age / half life), in steps. It stands still while the page is used, so that a page is never
// colder than those whose contents follow it in a sequence: chains cool, and go, from their ends.

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/huge_pages.h"
#include "kv/page_allocator.h"
#include "kv/page_holders.h"
#include "kv/placement.h"
#include "kv/run_index.h"

namespace tinyserve {

class PagePool;

/// One reference to a page. The page cannot be given to anybody else while the reference lives.
class PageRef {
 public:
  PageRef() = default;
  PageRef(PageRef&& other) noexcept : pool_(std::exchange(other.pool_, nullptr)), page_(other.page_) {}
  PageRef& operator=(PageRef&& other) noexcept {
    if (this != &other) {
      reset();
      pool_ = std::exchange(other.pool_, nullptr);
      page_ = other.page_;
    }
    return *this;
  }
  ~PageRef() { reset(); }

  explicit operator bool() const { return pool_ != nullptr; }
  int32_t page() const { return page_; }
  /// Gives the reference up.
  void reset();
  /// The page it refers to has been relocated (PagePool::relocate).
  void retarget(int32_t page) { page_ = page; }

 private:
  friend class PagePool;
  PageRef(PagePool* pool, int32_t page) : pool_(pool), page_(page) {}

  PagePool* pool_ = nullptr;
  int32_t page_ = -1;
};

/// Whoever indexes contents: hears what becomes of kept pages, and says which of those nobody refers to go first.
class EvictionListener {
 public:
  virtual ~EvictionListener() = default;
  /// The content of an unreferenced page is about to be overwritten.
  virtual void on_evict(int32_t page) = 0;
  /// The last reference to a kept page went away.
  virtual void on_free(int32_t /*page*/) {}
  /// An unreferenced kept page got a reference again.
  virtual void on_reuse(int32_t /*page*/) {}
  /// The unreferenced kept page to give up first, or -1.
  virtual int32_t coldest() { return -1; }
  /// The next in that order after a page that was in it; -1: there is none.
  virtual int32_t coldest_after(int32_t /*page*/) const { return -1; }
  /// What overwriting an unreferenced kept page costs (f4), >= 0; negative: the pool's heat is to count.
  virtual float price(int32_t /*page*/) const { return -1; }
};

enum class PageState : uint8_t { kUsed, kCached, kEmpty };

/// What has been asked of the pool so far. Grows only.
struct PlacementStats {
  uint64_t allocations = 0, pages = 0;
  uint64_t split_allocations = 0;  ///< not one interval
  uint64_t growths = 0;            ///< allocations that continue pages of the same sequence
  uint64_t contiguous_growths = 0; ///< of these, begun on the page right after its last
  uint64_t evictions = 0;          ///< cached pages overwritten
};

/// Reference counts and states of `num_pages` pages. Single threaded; must outlive its references.
class PagePool {
 public:
  /// Throws InputError when the configuration names no policy.
  explicit PagePool(int32_t num_pages, const PlacementConfig& config = {});
  ~PagePool();
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  int32_t num_pages() const { return static_cast<int32_t>(pages_.size()); }
  int32_t num_used() const { return num_used_; }
  int32_t num_cached() const { return num_cached_; }  ///< free, with content
  int32_t num_free() const { return num_pages() - num_used_; }
  int32_t ref_count(int32_t page) const { return static_cast<int32_t>(holds_[page].references); }
  PageState state(int32_t page) const {
    const Hold h = holds_[page];
    return h.references > 0 ? PageState::kUsed : h.kept ? PageState::kCached : PageState::kEmpty;
  }
  /// The sequence that the page was last allocated for (PageRequest::sequence), whoever shares it now.
  uint64_t owner(int32_t page) const { return pages_[page].owner; }
  const PageAllocator& allocator() const { return *allocator_; }
  /// The free runs. Up to date until the next change of the pool.
  const RunIndex& runs() const { return settle(), runs_; }
  RunStatistics run_statistics() const { return runs().statistics(); }
  const PlacementStats& stats() const { return stats_; }

  /// Appends references to request.count pages to `out`; false, and nothing changed, when fewer are free. Cached
  /// content that must go is announced to the listener first.
  [[nodiscard]] bool allocate(const PageRequest& request, std::vector<PageRef>& out);
  /// Another reference to a used page, or the first to a cached one. Touches it.
  PageRef share(int32_t page);

  /// Marks the page's content as worth keeping when the last reference goes (it is indexed for prefix hits).
  void keep(int32_t page);
  /// Takes the mark away; a free cached page becomes empty.
  void forget(int32_t page);
  bool kept(int32_t page) const { return holds_[page].kept; }
  void set_listener(EvictionListener* listener) { listener_ = listener; }
  /// f4 of one page: what the listener says of a cached page, else its heat; nothing for an empty one.
  double price(int32_t page) const {
    if (!holds_[page].kept) return 0;
    const float asked = listener_ ? listener_->price(page) : -1;
    return asked >= 0 ? asked : heat(page);
  }
  /// The cached page to give up first, as the listener ranks them; -1: there is none.
  int32_t coldest() const { return listener_ ? listener_->coldest() : -1; }
  int32_t coldest_after(int32_t page) const { return listener_ ? listener_->coldest_after(page) : -1; }

  /// One more use of the page's content, now. allocate() and share() do it themselves.
  void touch(int32_t page);
  float heat(int32_t page) const {
    const Page& p = pages_[page];
    return holds_[page].references > 0 ? p.heat : decayed(p);
  }
  /// Ends a step: heat is measured in steps.
  void tick() { ++now_; }
  uint32_t now() const { return now_; }
  double heat_half_life() const { return heat_half_life_; }
  /// When a page with a heat of 1 would have to have been used last to be as hot as this one, in steps: orders free
  /// pages by heat and does not change while they are free.
  double heat_time(int32_t page) const;

  /// Moves everything known about the used page `from` (references, owner, heat, mark) to the free page `to`, which
  /// loses its own content (the listener hears); `from` is empty then. Who holds references has to change them
  /// (PageRef::retarget), whoever indexes content as well.
  void relocate(int32_t from, int32_t to);

  /// The content of a free page goes (the listener hears), because the page is about to be overwritten.
  void discard(int32_t page);

  /// The tables that hold pages, seen from the pages. PageTable writes it.
  PageHolders& holders() { return holders_; }
  const PageHolders& holders() const { return holders_; }

  /// Weighs free runs for F_spatial (RunIndex::weigh).
  void weigh_runs(double sigma) { runs_.weigh(sigma); }

  /// Promises free pages from `start`, which must be the start of a run, to whoever ends before it. For policies.
  void reserve(int32_t start, int32_t pages) const { settle(), runs_.reserve(start, pages); }

  /// For policies that watch: the runs as they are in the middle of a change.
  const RunIndex& runs_in_change() const { return runs_; }
  void watch_runs(RunWatcher* watcher) const { runs_.set_watcher(watcher); }

  /// TS_CHECKs that counts, states, runs and the allocator's books agree. O(num_pages); for tests.
  void check_invariants() const;

 private:
  friend class PageRef;
  struct Page {
    uint64_t owner = 0;
    float heat = 0;            // at `heated`, or since it became free with content
    uint32_t heated = 0;       // step; wraps
  };
  struct Hold {  // apart from the rest: giving back pages without content touches nothing else
    uint32_t references : 31 = 0;
    uint32_t kept : 1 = 0;
  };

  void release(int32_t page);
  void settle() const;
  void take(int32_t first, int32_t count);
  void evict(int32_t page);
  float decayed(const Page& page) const {
    const uint32_t age = now_ - page.heated;
    float heat = page.heat * decay_[age & 2047];
    if (age >= 2048) heat *= decay_[2048 + (age >> 11 & 2047)] * decay_[4096 + (age >> 22)];
    return heat;
  }

  HugeVector<Page> pages_;
  HugeVector<Hold> holds_;  // [num_pages] as pages_
  int32_t num_used_ = 0, num_cached_ = 0;
  uint32_t now_ = 0;
  double heat_half_life_;
  std::vector<float> decay_;  // [3 * 2048] 2^-(age / half life), for 11 bits of the age each
  // Pages come back one at a time, but nearly always neighbours after each other: the interval [first, end) is put into
  // the index when it is asked or another interval begins.
  mutable RunIndex runs_;
  mutable int32_t returned_first_ = 0, returned_end_ = 0;
  std::unique_ptr<PageAllocator> allocator_;
  bool releases_wanted_;
  EvictionListener* listener_ = nullptr;
  PageHolders holders_;
  PlacementStats stats_;
  std::vector<int32_t> chosen_;  // scratch
};

inline void PagePool::settle() const {
  if (returned_first_ == returned_end_) return;
  const int32_t count = returned_end_ - returned_first_;
  returned_end_ = returned_first_;
  runs_.put(returned_first_, count);
  allocator_->on_put(returned_first_, count);
}

inline void PageRef::reset() {
  if (pool_) std::exchange(pool_, nullptr)->release(page_);
}

}  // namespace tinyserve
