#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kv/page_holders.h"
#include "kv/page_pool.h"

namespace tinyserve {

/// The physical page of each logical page of one sequence; holds a reference to each and says so in the pool's books
/// (PageHolders), so that pages can be moved. Its version changes with every change but an append, so that a copy of
/// the first pages stays good while the version does. Does not move: its address is its name.
class PageTable {
 public:
  explicit PageTable(PagePool& pool);
  ~PageTable();
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;

  std::span<const int32_t> pages() const { return pages_; }
  int32_t size() const { return static_cast<int32_t>(pages_.size()); }
  int32_t operator[](int32_t logical) const { return pages_[logical]; }
  uint64_t version() const { return version_; }
  /// Physical runs: maximal stretches of logical pages that lie behind each other. What a copy of the sequence pays for.
  int32_t num_runs() const { return num_runs_; }
  int32_t id() const { return id_; }  ///< in PageHolders

  /// Room for that many pages, so that set() does not allocate.
  void reserve(int32_t num_pages);
  /// Puts `page` at `logical` <= size(): appends, or replaces (and releases) the page there.
  void set(int32_t logical, PageRef page);
  /// Starts as another reference to each of the other's pages. This table must be empty.
  void share_all(const PageTable& other);
  /// Releases all pages, the last first: the LRU then evicts a chain of pages from its end, and what is left of it can
  /// still be hit.
  void clear();

 private:
  friend class PageHolders;
  struct Entry {
    PageRef ref;
    TablePlace previous, next;  // in the page's list of holders
  };
  bool breaks_at(int32_t logical) const { return logical == 0 || pages_[logical] != pages_[logical - 1] + 1; }
  /// Runs that begin at `logical` or right after it.
  int32_t runs_around(int32_t logical) const {
    return breaks_at(logical) + (logical + 1 < size() && breaks_at(logical + 1));
  }
  void count_runs(int32_t change);

  PagePool* pool_;
  PageHolders* holders_;
  int32_t id_;
  std::vector<Entry> entries_;
  std::vector<int32_t> pages_;
  int32_t num_runs_ = 0;
  int32_t full_pages_ = 0;  // its first pages that PageHolders knows to be full
  int32_t reads_ = 0;       // of all pages in the present window, not yet added to them
  uint64_t version_ = 0;
};

template <class Fn>
void PageHolders::for_each(int32_t page, Fn&& fn) const {
  for (TablePlace place = heads_[page]; place.table >= 0; place = next_of(place)) fn(*tables_[place.table], place.logical);
}

}  // namespace tinyserve
