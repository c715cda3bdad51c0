#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "base/check.h"
#include "kv/page_pool.h"
#include "kv/placement/cold_queue.h"
#include "kv/placement/objective.h"
#include "kv/placement/placing.h"
#include "kv/placement/policies.h"

namespace tinyserve {
namespace {

using Run = RunIndex::Run;
using Family = RunIndex::Family;

/// The placement of least cost among: growth in place; the runs in which the terms change sides, which are those just
/// long enough for the request, for the request with its room, and with a useful rest besides, and those just too short
/// for the last two; the same among intervals of empty pages; and windows around the coldest pages. In each run the
/// placements at its ends. All are found in O(log N + request).
class BestFit final : public PageAllocator {
 public:
  explicit BestFit(const PlacementConfig& config) : config_(config) {}

  std::string_view name() const override { return "best_fit"; }
  const PlacementObjective* objective() const override { return objective_.get(); }

  void attach(const PagePool& pool) override {
    pool_ = &pool;
    objective_ = std::make_unique<PlacementObjective>(pool, config_.weights);
    cold_ = std::make_unique<ColdQueue>(pool.num_pages(), std::max(1.0, config_.heat_half_life / 8));
    empty_ = std::make_unique<RunIndex>(pool.num_pages());
  }

  void on_put(int32_t first, int32_t count) override {
    if (!indexed_ && pool_->num_cached() > 0) index_empty_pages(first, count);
    visit(first, count, [&](int32_t page, int32_t pages, bool cached) {
      if (!cached) return empty_->put(page, pages);
      // A sequence gives its last page back first, and that one is to go first.
      for (int32_t p = page + pages; p-- > page;) cold_->add(p, pool_->heat_time(p), pool_->now());
    });
  }
  void on_take(int32_t first, int32_t count) override {
    visit(first, count, [&](int32_t page, int32_t pages, bool cached) {
      if (!cached) return empty_->take(page, pages);
      for (int32_t p = page; p < page + pages; ++p) cold_->remove(p);
    });
  }
  void on_forget(int32_t page) override {
    cold_->remove(page);
    empty_->put(page, 1);
  }

  void choose(const PageRequest& request, std::span<int32_t> out) override {
    request_ = &request;
    best_cost_ = std::numeric_limits<double>::infinity();
    best_start_ = -1;
    num_tried_ = 0;
    const int32_t next = place_after(request);
    if (next >= 0) try_at(pool_->runs().run_of(next), next);
    if (next < 0 || best_cost_ > objective_->least_elsewhere(request)) find_candidates();
    if (best_start_ >= 0) return fill(out, best_start_, request.count);
    const int32_t grown = grow_in_place(*pool_, request, out);
    if (grown < request.count) split_over_longest(*pool_, out.subspan(grown), grown > 0 ? out[0] : -1);
  }

  void on_allocated(const PageRequest& request, std::span<const int32_t> pages) override {
    objective_->observe(request);
    const int32_t next = pages.back() + 1;
    if (next >= pool_->num_pages() || !pool_->runs().is_free(next)) return;
    const Run& run = pool_->runs().run_of(next);
    if (run.reserved != std::min(run.length, request.expected_pages)) pool_->reserve(next, request.expected_pages);
  }

  void check_invariants(std::span<const uint8_t> state) const override {
    cold_->check_invariants(state);
    TS_CHECK(indexed_ || pool_->num_cached() == 0, "cached pages nobody indexed");
    if (!indexed_) return;
    empty_->check_invariants();
    for (int32_t page = 0; page < pool_->num_pages(); ++page)
      TS_CHECK(empty_->is_free(page) == (state[page] == 2), "the empty pages are not the indexed ones");
  }

 private:
  static constexpr int32_t kRunsPerSize = 3, kRunsByHeat = 16, kSeeds = 6, kLooks = 32, kMostShifts = 16;

  /// Without cached pages the empty ones are the free ones, so the index begins with the first: all that is free but
  /// [first, first + count), which is being put back.
  void index_empty_pages(int32_t first, int32_t count) {
    indexed_ = true;
    const RunIndex& runs = pool_->runs_in_change();
    for (int32_t page = runs.next_used(0); page < pool_->num_pages();) {
      int32_t end = page + 1;
      while (end < pool_->num_pages() && !runs.is_free(end)) ++end;
      empty_->take(page, end - page);
      page = runs.next_used(end);
    }
    empty_->take(first, count);
  }

  /// Calls handle(first, count, cached) for the maximal intervals of one kind, low to high.
  template <typename Handle>
  void visit(int32_t first, int32_t count, Handle handle) const {
    if (!indexed_) return;
    if (pool_->num_cached() == 0) return handle(first, count, false);  // the marks of what moves count as cached
    const int32_t end = first + count;
    while (first < end) {
      const bool cached = pool_->kept(first);
      int32_t stop = first + 1;
      while (stop < end && pool_->kept(stop) == cached) ++stop;
      handle(first, stop - first, cached);
      first = stop;
    }
  }

  /// The page after the sequence's last, if it is free; else -1.
  int32_t place_after(const PageRequest& request) const {
    if (request.sequence_pages.empty()) return -1;
    const int32_t next = request.sequence_pages.back() + 1;
    return next < pool_->num_pages() && pool_->runs().is_free(next) ? next : -1;
  }

  void try_at(const Run& run, int32_t start) {
    if (start < run.start || start + request_->count > run.end()) return;
    for (int32_t i = 0; i < num_tried_; ++i) {
      if (tried_[i] == start) return;
    }
    if (num_tried_ < static_cast<int32_t>(tried_.size())) tried_[num_tried_++] = start;
    const double cost = objective_->cost(*request_, run, start, best_cost_);
    if (cost < best_cost_) {
      best_cost_ = cost;
      best_start_ = start;
    }
  }

  /// At its beginning, or right after what is promised; at its end, with and without room to grow.
  void try_ends(const Run& run) {
    const int32_t last = run.end() - request_->count;
    try_at(run, run.start + run.reserved);
    if (request_->expected_pages > 0) try_at(run, last - request_->expected_pages);
    // Without room, promises and content both ends are alike, but that of the pool.
    if (request_->expected_pages > 0 || run.reserved > 0 || pool_->num_cached() > 0 || run.end() == pool_->num_pages())
      try_at(run, last);
    // With a useful rest before it, if that leaves less room than the other end would waste.
    if (request_->expected_pages > 0) try_at(run, run.start + run.reserved + useful_rest());
    if (run.reserved == 0) return;
    try_at(run, run.start);
    try_at(run, run.start + 1);                                    // where a shift changes less
    try_at(run, last - request_->expected_pages - useful_rest());  // takes promised pages, but leaves a useful rest
  }

  /// A run with nothing promised that the request uses up: nothing is better, as long as no content
  /// counts, since f1 is least where the run is shortest.
  bool try_exact(int32_t wanted) {
    const RunIndex& runs = pool_->runs();
    if (wanted > RunIndex::kExactLengths) return false;
    const int32_t handle = runs.head(Family::kPlain, RunIndex::class_of(wanted));
    if (handle == RunIndex::kNone) return false;
    try_at(runs.run(handle), runs.run(handle).start);
    return true;
  }

  int32_t useful_rest() const { return static_cast<int32_t>(objective_->median_request() + 0.999); }
  static int32_t size_in(Family family, const Run& run) { return family == Family::kRest ? run.usable() : run.length; }

  /// The shortest runs of a family that have `wanted` pages (unpromised ones in kRest).
  template <typename Try>
  static void visit_fitting(const RunIndex& runs, Family family, int32_t wanted, int32_t most, Try try_run) {
    int32_t looks = kLooks;
    for (int32_t c = runs.next_class(family, RunIndex::class_of(wanted)); c != RunIndex::kNone;
         c = runs.next_class(family, c + 1)) {
      for (int32_t h = runs.head(family, c); h != RunIndex::kNone && looks > 0; h = runs.next(family, h), --looks) {
        if (size_in(family, runs.run(h)) < wanted) continue;
        try_run(runs.run(h));
        if (--most == 0) return;
      }
      if (c + 1 >= RunIndex::kNumClasses || looks <= 0) return;
    }
  }
  /// Nearly the longest that have fewer, but `least`.
  template <typename Try>
  static void visit_shorter(const RunIndex& runs, Family family, int32_t wanted, int32_t least, int32_t most,
                            Try try_run) {
    if (wanted <= least) return;
    int32_t looks = kLooks;
    for (int32_t c = runs.last_class(family, RunIndex::class_of(wanted - 1)); c != RunIndex::kNone;
         c = runs.last_class(family, c - 1)) {
      for (int32_t h = runs.head(family, c); h != RunIndex::kNone && looks-- > 0; h = runs.next(family, h)) {
        const int32_t size = size_in(family, runs.run(h));
        if (size >= wanted) continue;
        if (size < least) return;
        try_run(runs.run(h));
        if (--most == 0) return;
      }
      if (looks <= 0) return;
    }
  }

  void find_candidates() {
    const RunIndex& runs = pool_->runs();
    const int32_t n = request_->count, room = request_->expected_pages;
    const int32_t useful = n + room + useful_rest();
    const bool cached = pool_->num_cached() > 0;
    const auto ends = [&](const Run& run) { try_ends(run); };
    if (!cached && room == 0 && best_start_ < 0 && try_exact(n)) return;
    if (cached) try_coldest();  // first: among equals the page released first goes first
    for (const Family family : {Family::kPlain, Family::kRest, Family::kPromised}) {
      if (runs.last_class(family) == RunIndex::kNone) continue;
      const int32_t most = cached                     ? kRunsByHeat
                           : family == Family::kPlain ? 1
                                                      : kRunsPerSize;  // plain ones of a length are alike
      visit_fitting(runs, family, n + room, most, ends);
      visit_fitting(runs, family, useful, most, ends);
      visit_fitting(runs, family, useful + 1, most, ends);  // the rest does not hang on one page
      if (room > 0) visit_fitting(runs, family, n, most, ends);
      visit_shorter(runs, family, n + room, family == Family::kRest ? 1 : n, most, ends);
    }
    if (!cached) return;
    try_where_heat_matters(n, room, useful);
    refine();
  }

  void try_where_heat_matters(int32_t n, int32_t room, int32_t useful) {
    const RunIndex& runs = pool_->runs();
    if (const Run longest = runs.longest(); longest.length >= n) try_ends(longest);
    const int32_t top = pool_->num_pages() - 1;
    if (runs.is_free(top)) try_ends(runs.run_of(top));
    if (empty_->num_free() == 0) return;
    const auto in_empty = [&](const Run& empties) {
      const Run& run = runs.run_of(empties.start);
      try_at(run, std::max(empties.start, std::min(empties.end() - n, run.start + run.reserved)));
      try_at(run, empties.start);
      try_at(run, empties.end() - n);
      try_at(run, empties.end() - n - room);
    };
    for (const int32_t wanted : {n + room, n, useful})
      visit_fitting(*empty_, Family::kPlain, wanted, kRunsByHeat, in_empty);
  }

  /// Shifts the best placement where that makes it better: room is missed for heat that is spared, page by page.
  void refine() {
    if (best_start_ < 0) return;
    const Run& run = pool_->runs().run_of(best_start_);
    for (int32_t step = 8, rounds = 0; step > 0 && rounds < kMostShifts; ++rounds) {
      const int32_t before = best_start_;
      try_at(run, before - step);
      try_at(run, before + step);
      if (best_start_ == before) step /= 2;
    }
  }

  /// Around each of the coldest pages, the window of the request and its room that holds the least heat.
  void try_coldest() {
    const RunIndex& runs = pool_->runs();
    const bool ranked = pool_->coldest() >= 0;
    int32_t page = ranked ? pool_->coldest() : cold_->first();
    for (int32_t seed = 0; seed < kSeeds && page >= 0; ++seed) {
      const Run& run = runs.run_of(page);
      const int32_t n = request_->count;
      const int32_t window = std::min(run.length, n + request_->expected_pages);
      if (window >= n) {
        try_coldest_around(run, page, window);
        // Its own sequence's beginning or end is often the run's: no small rest then.
        if (page - run.start < window) try_at(run, run.start + run.reserved);
        if (run.end() - page <= window) try_at(run, run.end() - n);
      }
      const int32_t from = page;
      int32_t steps = 2 * window;
      do page = ranked ? pool_->coldest_after(page) : cold_->after(page);
      while (page >= 0 && std::abs(page - from) < window && --steps > 0);
    }
  }

  void try_coldest_around(const Run& run, int32_t page, int32_t window) {
    const int32_t low = std::max(run.start, page - window + 1), high = std::min(run.end() - window, page);
    double sum = 0;
    for (int32_t p = low; p < low + window; ++p) sum += heat(p);
    double least = sum;
    int32_t first = low, last = low;
    for (int32_t start = low + 1; start <= high; ++start) {
      sum += heat(start + window - 1) - heat(start - 1);
      if (sum < least - 1e-9) {
        least = sum;
        first = last = start;
      } else if (sum <= least + 1e-9) {
        last = start;
      }
    }
    try_at(run, first);
    try_at(run, last);
  }
  double heat(int32_t page) const { return pool_->price(page); }

  const PlacementConfig config_;
  const PagePool* pool_ = nullptr;
  std::unique_ptr<PlacementObjective> objective_;
  std::unique_ptr<ColdQueue> cold_;
  std::unique_ptr<RunIndex> empty_;  // its runs are the maximal intervals of empty pages, once one was cached
  bool indexed_ = false;
  // The search under way:
  const PageRequest* request_ = nullptr;
  double best_cost_ = 0;
  int32_t best_start_ = -1, num_tried_ = 0;
  std::array<int32_t, 64> tried_{};
};

}  // namespace

std::unique_ptr<PageAllocator> make_best_fit(const PlacementConfig& config) {
  return std::make_unique<BestFit>(config);
}

}  // namespace tinyserve
