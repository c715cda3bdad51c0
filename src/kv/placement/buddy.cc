#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "base/check.h"
#include "kv/page_pool.h"
#include "kv/placement/placing.h"
#include "kv/placement/policies.h"

namespace tinyserve {
namespace {

/// Free blocks of 2^k pages at multiples of 2^k, in one list for each k; two halves that are both free become one
/// block. A request gets the beginning of the smallest block that is large enough, and what it does not need stays free.
class Buddy final : public PageAllocator {
 public:
  std::string_view name() const override { return "buddy"; }

  void attach(const PagePool& pool) override {
    num_pages_ = pool.num_pages();
    order_.assign(num_pages_, -1);
    previous_.assign(num_pages_, -1);
    next_.assign(num_pages_, -1);
    heads_.fill(-1);
    on_put(0, num_pages_);
  }

  void on_put(int32_t first, int32_t count) override {
    for_blocks(first, count, [&](int32_t block, int32_t order) {
      for (; order < kMaxOrder; ++order) {
        const int32_t other = block ^ (1 << order);
        if (other >= num_pages_ || order_[other] != order) break;
        unlink(other);
        block &= ~(1 << order);
      }
      link(block, order);
    });
  }

  void on_take(int32_t first, int32_t count) override {
    for_blocks(first, count, [&](int32_t wanted, int32_t wanted_order) {
      // Whole blocks may lie inside what is taken; else a larger one holds it, and is halved until it is that.
      int32_t order = wanted_order, block = wanted;
      while (order <= kMaxOrder && order_[block] != order) block &= ~(1 << order++);
      if (order > kMaxOrder) {
        for (int32_t page = wanted, end = wanted + (1 << wanted_order); page < end;) {
          TS_CHECK(order_[page] >= 0, "pages taken are not all free");
          const int32_t next = page + (1 << order_[page]);
          unlink(page);
          page = next;
        }
        return;
      }
      unlink(block);
      while (order > wanted_order) {
        const int32_t half = 1 << --order;
        link(wanted & half ? block : block + half, order);
        block += wanted & half;
      }
    });
  }

  void choose(const PageRequest& request, std::span<int32_t> out) override {
    const int32_t fitting = std::bit_width(static_cast<uint32_t>(request.count - 1));
    for (int32_t order = fitting; order <= kMaxOrder; ++order) {
      if (heads_[order] >= 0) return fill(out, heads_[order], request.count);
    }
    size_t placed = 0;  // none is large enough: the largest first
    for (int32_t order = fitting; order-- > 0;) {
      for (int32_t block = heads_[order]; block >= 0 && placed < out.size(); block = next_[block]) {
        const int32_t count = static_cast<int32_t>(std::min<size_t>(out.size() - placed, 1 << order));
        fill(out.subspan(placed), block, count);
        placed += count;
      }
    }
    TS_CHECK(placed == out.size(), "more pages asked for than are free");
  }

  void check_invariants(std::span<const uint8_t> state) const override {
    std::vector<uint8_t> covered(state.size(), 0);
    for (int32_t order = 0; order <= kMaxOrder; ++order) {
      for (int32_t block = heads_[order], before = -1; block >= 0; before = block, block = next_[block]) {
        TS_CHECK(previous_[block] == before && order_[block] == order && block % (1 << order) == 0, "broken block list");
        for (int32_t page = block; page < block + (1 << order); ++page) {
          TS_CHECK(state[page] != 0 && !covered[page], "a block holds pages that are not free");
          covered[page] = 1;
        }
        const int32_t other = block ^ (1 << order);
        TS_CHECK(order == kMaxOrder || other >= num_pages_ || order_[other] != order, "two halves not joined");
      }
    }
    for (size_t page = 0; page < state.size(); ++page) TS_CHECK(covered[page] == (state[page] != 0), "free page in no block");
  }

 private:
  static constexpr int32_t kMaxOrder = 24;

  /// Calls handle(block, order) for the largest aligned blocks that make up the interval.
  template <typename Handle>
  static void for_blocks(int32_t first, int32_t count, Handle handle) {
    while (count > 0) {
      const int32_t aligned = first == 0 ? kMaxOrder : std::countr_zero(static_cast<uint32_t>(first));
      const int32_t order = std::min({aligned, static_cast<int32_t>(std::bit_width(static_cast<uint32_t>(count))) - 1, kMaxOrder});
      handle(first, order);
      first += 1 << order;
      count -= 1 << order;
    }
  }
  void link(int32_t block, int32_t order) {
    order_[block] = static_cast<int8_t>(order);
    previous_[block] = -1;
    next_[block] = heads_[order];
    if (heads_[order] >= 0) previous_[heads_[order]] = block;
    heads_[order] = block;
  }
  void unlink(int32_t block) {
    if (next_[block] >= 0) previous_[next_[block]] = previous_[block];
    (previous_[block] >= 0 ? next_[previous_[block]] : heads_[order_[block]]) = next_[block];
    order_[block] = -1;
  }

  int32_t num_pages_ = 0;
  std::vector<int8_t> order_;               // [num_pages] of the free block that begins there, -1 elsewhere
  std::vector<int32_t> previous_, next_;    // [num_pages]
  std::array<int32_t, kMaxOrder + 1> heads_;
};

}  // namespace

std::unique_ptr<PageAllocator> make_buddy(const PlacementConfig&) { return std::make_unique<Buddy>(); }

}  // namespace tinyserve
