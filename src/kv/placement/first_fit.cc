#include <algorithm>
#include <bit>
#include <vector>

#include "base/check.h"
#include "kv/page_pool.h"
#include "kv/placement/placing.h"
#include "kv/placement/policies.h"

namespace tinyserve {
namespace {

/// A tree of maxima over blocks of 64 pages: the longest run that starts in each block. The lowest run of a length is
/// found in O(log N).
class FirstFit final : public PageAllocator, public RunWatcher {
 public:
  std::string_view name() const override { return "first_fit"; }

  void attach(const PagePool& pool) override {
    pool_ = &pool;
    const int32_t blocks = (pool.num_pages() + kBlock - 1) / kBlock;
    leaves_ = static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(blocks)));
    longest_.assign(2 * leaves_, 0);
    on_run_changed(0);
    pool.watch_runs(this);
  }

  void on_run_changed(int32_t start) override {
    int32_t at = leaves_ + start / kBlock;
    int32_t value = longest_starting(start / kBlock);
    while (longest_[at] != value) {
      longest_[at] = value;
      if (at == 1) return;
      at /= 2;
      value = std::max(longest_[2 * at], longest_[2 * at + 1]);
    }
  }

  void choose(const PageRequest& request, std::span<int32_t> out) override {
    const int32_t grown = grow_in_place(*pool_, request, out);
    const std::span<int32_t> rest = out.subspan(grown);
    if (rest.empty()) return;
    const int32_t wanted = static_cast<int32_t>(rest.size());
    // What grew in place is not taken yet: the run it grew into must not be given again.
    const int32_t skip = grown > 0 ? out[0] : -1;
    int32_t start = lowest(wanted);
    if (start >= 0 && start == skip) start = -1;
    if (start >= 0)
      fill(rest, start, wanted);
    else
      split_over_longest(*pool_, rest, skip);
  }

  void check_invariants(std::span<const uint8_t>) const override {
    for (int32_t at = 1; at < leaves_; ++at)
      TS_CHECK(longest_[at] == std::max(longest_[2 * at], longest_[2 * at + 1]), "broken tree of runs");
    for (int32_t block = 0; block * kBlock < pool_->num_pages(); ++block)
      TS_CHECK(longest_[leaves_ + block] == longest_starting(block), "stale tree of runs");
  }

 private:
  static constexpr int32_t kBlock = 64;

  /// Calls visit(start, length) for the runs that start in the block, until it returns true.
  template <typename Visit>
  void visit_block(int32_t block, Visit visit) const {
    const RunIndex& runs = pool_->runs_in_change();
    const int32_t end = std::min(pool_->num_pages(), (block + 1) * kBlock);
    for (int32_t page = block * kBlock; page < end;) {
      if (!runs.is_free(page)) {
        ++page;
        continue;
      }
      const int32_t stop = runs.next_used(page);
      if ((page == 0 || !runs.is_free(page - 1)) && visit(page, stop - page)) return;
      page = stop;
    }
  }

  int32_t longest_starting(int32_t block) const {
    int32_t longest = 0;
    visit_block(block, [&](int32_t, int32_t length) { return longest = std::max(longest, length), false; });
    return longest;
  }

  /// Start of the lowest run of at least `length` pages, or -1.
  int32_t lowest(int32_t length) const {
    if (longest_[1] < length) return -1;
    int32_t at = 1;
    while (at < leaves_) at = longest_[2 * at] >= length ? 2 * at : 2 * at + 1;
    int32_t found = -1;
    visit_block(at - leaves_, [&](int32_t start, int32_t run) {
      if (run >= length) found = start;
      return found >= 0;
    });
    return found;
  }

  const PagePool* pool_ = nullptr;
  int32_t leaves_ = 0;
  std::vector<int32_t> longest_;  // [2 * leaves_] heap order, the root at 1
};

}  // namespace

std::unique_ptr<PageAllocator> make_first_fit(const PlacementConfig&) { return std::make_unique<FirstFit>(); }

}  // namespace tinyserve
