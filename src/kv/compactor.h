#pragma once
// Compaction: moves pages so that sequences and free space are in fewer, longer runs. Nothing needs it to be correct; it
// makes transfers fewer and larger. Pages move between steps only, a bounded number of bytes at a time:
//
//   trigger   mean descriptors a sequence, or external fragmentation, passes its threshold; work goes on until it has
//             fallen below a lower one (hysteresis), or until a walk over all sequences finds nothing that pays: then
//             it rests, longer each time in vain.
//   jobs      a run of a sequence moves behind the run before it, or in front of the one after it, where there is room;
//             or a whole sequence moves into a free run; or what stands between the longest free run and the next one
//             moves into holes elsewhere. The job that wins most per page moved goes first, over as many steps as it takes.
//   moving    the tables, the pool and the prefix cache are changed first (every holder of a page at once), then all bytes
//             of the step are copied in one or two batched operations; when copying fails everything is changed back.
//
// Free places may hold cached content: it is moved on to an empty page; where none is known, the policy is asked for
// a page, which costs the content that it would have given up next anyway.

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "kv/kv_report.h"
#include "kv/page_pool.h"
#include "kv/prefix_cache.h"

namespace tinyserve {

struct CompactionConfig {
  int64_t bytes_per_step = int64_t{64} << 20;  ///< moved at most; 0: off
  double time_share = 0.005;  ///< of the time that passes may go into compaction, where it is measured
  double start_descriptors = 1.5, stop_descriptors = 1.1;  ///< mean a sequence
  double start_external = 0.5, stop_external = 0.25;       ///< external fragmentation
  double start_total = 1.0;   ///< F_total; work goes on until it is half of that
  double min_pay = 0.25;      ///< pages of run length won per page moved that make a job worth doing
  int32_t random_moves = 0;   ///< for tests: pages moved somewhere else after every step, for nothing
  std::function<void(size_t layer)> before_copy = {};  ///< for tests: before a layer's bytes of moved pages are copied
};

/// Pages whose bytes are to be copied, (source, destination): all of `displaced` first, then `moves`. Within each list
/// sources and destinations are disjoint, and stretches that go up by one on both sides lie together.
struct MovePlan {
  std::vector<std::pair<int32_t, int32_t>> displaced, moves;
  bool empty() const { return moves.empty() && displaced.empty(); }
  void clear() { displaced.clear(), moves.clear(); }
};

/// Engine's thread only, between steps.
class Compactor {
 public:
  /// `prefix` may be null. Both outlive it.
  Compactor(const CompactionConfig& config, PagePool& pool, PrefixCache* prefix);

  /// Moves up to `budget` pages, if F (or descriptors) says so; the plan's bytes must be copied before anybody reads
  /// them, or undo() be called. `total_fragmentation` is F_total.
  const MovePlan& plan(int32_t budget, double total_fragmentation);
  /// The bytes of the last plan's moves are not copied: takes everything back but content given up, and displaced
  /// content stays where it is when that was copied whole. Allocates nothing.
  void undo(bool displaced_copied);
  /// Moves one page as a job would: `from` is held by tables only, `to` is free. For tests, and for whoever knows better.
  void move(int32_t from, int32_t to);

  bool active() const { return active_; }
  /// The page's bytes are somewhere else until the last plan's copies are made, or are about to be overwritten by them.
  bool touched(int32_t page) const { return batch_[page] == batch_number_; }
  const CompactionStats& stats() const { return stats_; }
  CompactionStats& stats() { return stats_; }
  /// Every reference to the page is a table's: no plan, no transfer holds it.
  bool movable(int32_t page) const;

 private:
  struct Job {
    std::vector<int32_t> pages;  // source pages, in the order they will lie
    int32_t destination = 0;
    int32_t next = 0;            // index of the next to move
  };
  struct Segment {
    int32_t logical, first, length;
  };
  struct Undo {
    int32_t from, to;
    bool displaced;
  };

  void begin_plan();
  void move_at_random(int32_t count);
  bool wanted(double total_fragmentation);
  bool find_job();
  bool find_gap_job();
  void examine(const PageTable& table);
  void consider(const PageTable& table, int32_t logical, int32_t count, int32_t destination);
  double win(std::span<const int32_t> pages, int32_t destination);
  int32_t find_hole(int32_t count, int32_t not_this, std::span<const Job> taken) const;
  int32_t promised_behind(int32_t page) const;
  void joined_from(int32_t page, bool upwards, std::vector<int32_t>& out) const;
  bool advance(Job& job, int32_t& budget);
  void touch(int32_t page) { batch_[page] = batch_number_; }
  int32_t take_place(int32_t from, int32_t to);
  int32_t empty_page();
  void relocate(int32_t from, int32_t to);
  void relocate_cached(int32_t from, int32_t to);

  const CompactionConfig config_;
  PagePool& pool_;
  PrefixCache* const prefix_;
  CompactionStats stats_;
  bool active_ = false;
  int32_t rest_ = 0, next_rest_ = 16;  // steps
  int32_t cursor_ = 0, seen_ = 0;      // table looked at next; tables seen since something was found
  std::vector<Job> jobs_;              // under way: the last one first
  int32_t longest_before_ = 0;         // the longest free run, when they are to make it longer
  Job best_;
  double best_pay_ = 0;
  MovePlan plan_;
  std::vector<Undo> undo_;
  std::vector<uint32_t> batch_;  // [num_pages] the last batch that moved to or from the page
  uint32_t batch_number_ = 0;
  uint64_t random_ = 1;
  struct Mapped {
    uint32_t number = 0;
    int32_t to = 0;
  };
  std::vector<Mapped> mapped_;  // [num_pages] where win() puts pages, valid where the number is its own
  uint32_t map_number_ = 0;
  std::vector<int32_t> vacated_;  // a stack of pages that were empty once
  // Scratch.
  std::vector<PageRef> scratch_;
  std::vector<Segment> segments_;
  std::vector<std::pair<int32_t, int32_t>> changes_;  // table, change of its runs
};

}  // namespace tinyserve
