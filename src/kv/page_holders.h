#pragma once
// Who holds which page, seen from the page: every place in a page table that names a page hangs in the page's list. So a
// page can be moved and every table that names it told, in as many steps as it has holders, one for nearly all of them.
// Beside it, what is known by adding up over tables: physical runs, filled slots, reads.

#include <cstdint>
#include <vector>

#include "kv/access_windows.h"

namespace tinyserve {

class PageTable;

/// A place in a page table; table -1: none.
struct TablePlace {
  int32_t table = -1, logical = -1;
  bool operator==(const TablePlace&) const = default;
};

/// The books that PageTable keeps for its pool. Single threaded.
class PageHolders {
 public:
  explicit PageHolders(int32_t num_pages) : heads_(num_pages), filled_(num_pages), accesses_(num_pages) {}
  PageHolders(const PageHolders&) = delete;
  PageHolders& operator=(const PageHolders&) = delete;

  bool held(int32_t page) const { return heads_[page].table >= 0; }
  /// Visits the places that name `page`: fn(const PageTable&, int32_t logical). O(holders).
  template <class Fn>
  void for_each(int32_t page, Fn&& fn) const;
  int32_t count(int32_t page) const;  ///< O(holders)
  /// Any table; null for an id nobody has. Ids are below num_ids() and are used again.
  PageTable* table(int32_t id) const { return tables_[id]; }
  int32_t num_ids() const { return static_cast<int32_t>(tables_.size()); }

  int64_t num_sequences() const { return num_sequences_; }  ///< tables that are not empty
  int64_t num_entries() const { return num_entries_; }      ///< pages of all tables; a shared one as often as it is held
  int64_t num_runs() const { return num_runs_; }            ///< physical runs of all tables
  int64_t filled_slots() const { return filled_slots_; }    ///< token slots filled in pages that are held

  /// Pages of `table` from the first on hold `tokens` tokens, all in all. O(pages not known to be full).
  void filled(PageTable& table, int32_t tokens, int32_t page_size);
  /// A step has read or written the first `pages` pages of the table. O(1) when these are all.
  void read(PageTable& table, int32_t pages);
  const AccessWindows& accesses() const { return accesses_; }
  /// Ends a window of accesses. O(pages of the sequences that were read in it).
  void close_window();

  /// Makes every table that names `from` name `to`, which nobody holds; what is known about the page goes with it. The
  /// references are retargeted, the pool's own books are its own business (PagePool::relocate). Returns by how many pages
  /// the mean run length grew, summed over the sequences that hold the page.
  double relocate(int32_t from, int32_t to);

  /// TS_CHECKs lists and sums against a walk over all tables. For tests.
  void check_invariants() const;

 private:
  friend class PageTable;
  int32_t add_table(PageTable* table);
  void remove_table(int32_t id);
  void link(PageTable& table, int32_t logical);
  void unlink(PageTable& table, int32_t logical);
  void settle_reads(PageTable& table);
  TablePlace& next_of(const TablePlace& place) const;

  std::vector<TablePlace> heads_;  // [num_pages]
  std::vector<int32_t> filled_;    // [num_pages] slots, of pages that are held
  AccessWindows accesses_;
  std::vector<PageTable*> tables_;
  std::vector<int32_t> spare_ids_;
  std::vector<int32_t> read_;  // tables that may have reads not yet added to their pages
  int64_t num_sequences_ = 0, num_entries_ = 0, num_runs_ = 0, filled_slots_ = 0;
};

}  // namespace tinyserve
