#pragma once
// The free runs of a pool: maximal intervals of free pages (ALGORITHMS section 2). A page enters and leaves in O(log64 N)
// (its neighbours are found in a hierarchy of bitmaps), whole intervals at once in the same time plus a word per 64
// pages; runs are found by length in O(1), because they hang in lists by class of length: one class for each length up
// to 64 pages, 16 for each doubling above (a class is then at most 1/16 wide). Memory is allocated once.
//
// Room kept behind a growing sequence is part of a run all the same: a run's first `reserved` pages are promised, softly,
// to the sequence that ends where it begins. Such runs hang in two lists, by their length and by what is not promised,
// so that whoever wants pages can look at promised ones last.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/huge_pages.h"
#include "kv/bit_tree.h"

namespace tinyserve {

/// What is known about the free runs at any moment, in pages.
struct RunStatistics {
  int32_t num_runs = 0;
  int32_t free_pages = 0;      ///< sum of lengths
  int64_t sum_of_squares = 0;  ///< of lengths
  int32_t largest = 0;

  double mean() const { return num_runs ? static_cast<double>(free_pages) / num_runs : 0; }
  double variance() const {
    return num_runs ? static_cast<double>(sum_of_squares) / num_runs - mean() * mean() : 0;
  }
  /// 1 - largest run / free pages: 0 when all that is free is one run, or nothing is.
  double external_fragmentation() const {
    return free_pages ? 1 - static_cast<double>(largest) / free_pages : 0;
  }
};

/// Told whenever a run begins, ends or changes at `start` (pages, not yet linked: ask for bits only).
class RunWatcher {
 public:
  virtual ~RunWatcher() = default;
  virtual void on_run_changed(int32_t start) = 0;
};

/// Sums over the free runs i of length r and weight w = exp(-d / sigma^2), where d is the distance of the run's centre
/// from the pool's high end as a share of the pool: what F_spatial is made of (ALGORITHMS section 1).
struct WeighedRuns {
  double weights = 0, lengths = 0, squares = 0;  ///< of w, r w, r^2 w
};

class RunIndex {
 public:
  struct Run {
    int32_t start = 0, length = 0;
    int32_t reserved = 0;  ///< its first pages, promised to the sequence that ends before it
    int32_t usable() const { return length - reserved; }
    int32_t end() const { return start + length; }
  };

  static constexpr int32_t kExactLengths = 64, kClassesPerDoubling = 16;
  static constexpr int32_t kNumClasses = kExactLengths + 25 * kClassesPerDoubling;
  static constexpr int32_t kNone = -1;

  /// All pages free.
  explicit RunIndex(int32_t num_pages);

  int32_t num_pages() const { return num_pages_; }
  bool is_free(int32_t page) const { return !used_.test(page); }
  /// Free pages of [first, first + count).
  int32_t num_free_in(int32_t first, int32_t count) const { return count - used_.count(first, count); }
  /// The run that holds this free page.
  const Run& run_of(int32_t page) const { return nodes_[node_at_[used_.previous(page) + 1]].run; }
  /// The first used page >= page, or num_pages; the last used page <= page, or -1.
  int32_t next_used(int32_t page) const { return used_.next(page); }
  int32_t previous_used(int32_t page) const { return used_.previous(page); }

  /// Used pages among the eight before `page`, bit 0 for the next one; the same for `page` and the seven after it.
  uint32_t used_before(int32_t page) const;
  uint32_t used_after(int32_t page) const { return used_.byte_at(page); }

  /// Takes free pages out of the run that holds them all. Taken from its start, they come off its reservation.
  void take(int32_t first, int32_t count);
  /// Puts used pages back, joined with the runs they touch. A reservation at their end is void: whoever had it is gone.
  void put(int32_t first, int32_t count);
  /// Promises the run that starts at `start`, as far as it goes.
  void reserve(int32_t start, int32_t pages);

  void set_watcher(RunWatcher* watcher) { watcher_ = watcher; }

  /// O(1) but for `largest`: as many steps as there are runs in the longest class.
  RunStatistics statistics() const;
  /// Keeps the sums below from now on. To be called before the first change.
  void weigh(double sigma);
  WeighedRuns weighed() const;  ///< zero without weigh()
  int32_t num_reserved() const { return num_reserved_; }  ///< pages promised
  int32_t num_free() const { return num_free_; }
  int32_t num_runs() const { return num_runs_; }
  int64_t sum_of_squares() const { return sum_of_squares_; }
  /// The longest of the runs, or of those with something promised (length 0: there is none).
  Run longest() const;
  Run longest_promised() const { return longest_in(kPromised); }

  /// The lists: runs with nothing promised by length, the others by length, and these by usable() where that is > 0.
  enum Family { kPlain, kPromised, kRest, kNumFamilies };
  static int32_t class_of(int32_t length);
  /// The shortest length that class has.
  static int32_t shortest(int32_t length_class);
  /// The first class >= `from` of the family that has runs; kNone when there is none.
  int32_t next_class(Family family, int32_t from) const;
  /// The last class <= `from`.
  int32_t last_class(Family family, int32_t from = kNumClasses - 1) const;
  /// Walks the runs of a class, the newest first: handles, kNone at the end.
  int32_t head(Family family, int32_t length_class) const { return heads_[family][length_class]; }
  int32_t next(Family family, int32_t handle) const { return nodes_[handle].links[family == kRest].next; }
  const Run& run(int32_t handle) const { return nodes_[handle].run; }

  /// TS_CHECKs lists, bitmaps and sums against a walk over all pages. For tests.
  void check_invariants() const;

 private:
  struct Link {
    int32_t previous = kNone, next = kNone;
    int32_t length_class = kNone;
  };
  struct Node {
    Run run;
    Link links[2];  // in kPlain or kPromised; in kRest
  };
  using Classes = std::array<uint64_t, (kNumClasses + 63) / 64>;

  void insert(Run run);
  void remove(int32_t handle);
  void replace(int32_t handle, Run run);
  void link(Family family, int32_t handle, int32_t length_class);
  void unlink(Family family, int32_t handle);
  void unlink_all(int32_t handle);
  void link_all(int32_t handle);
  void count(const Run& run, int32_t sign);
  Run longest_in(Family family) const;

  void changed(int32_t start) {
    if (watcher_) watcher_->on_run_changed(start);
  }

  int32_t num_pages_;
  BitTree used_;
  HugeVector<int32_t> node_at_;  // [num_pages] handle of the run that starts there; unset elsewhere
  HugeVector<Node> nodes_;       // [num_pages / 2 + 1] never more runs than that
  int32_t next_node_ = 0;         // nodes from here on were never used
  int32_t spare_ = kNone;         // list of nodes used before
  std::array<std::array<int32_t, kNumClasses>, kNumFamilies> heads_;
  std::array<Classes, kNumFamilies> classes_{};
  int32_t num_free_ = 0, num_runs_ = 0, num_reserved_ = 0;
  int64_t sum_of_squares_ = 0;
  // Weights in fixed point, so that sums do not drift however often runs come and go.
  static constexpr int32_t kWeightBits = 30, kWeightSteps = 4096;
  std::vector<uint32_t> weights_;  // [kWeightSteps + 2] at d = i / kWeightSteps; empty: nobody asked for them
  int64_t weight_sum_ = 0;
  __extension__ __int128 weighed_lengths_ = 0, weighed_squares_ = 0;
  RunWatcher* watcher_ = nullptr;
};

}  // namespace tinyserve
