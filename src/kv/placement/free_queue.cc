#include <vector>

#include "base/check.h"
#include "kv/page_pool.h"
#include "kv/placement/policies.h"

namespace tinyserve {
namespace {

/// A doubly linked list of the free pages through two arrays; the entry after the last page is its head.
class FreeQueue final : public PageAllocator {
 public:
  std::string_view name() const override { return "free_queue"; }
  bool wants_releases() const override { return true; }

  void attach(const PagePool& pool) override {
    head_ = pool.num_pages();
    previous_.assign(head_ + 1, head_);
    next_.assign(head_ + 1, head_);
    for (int32_t page = 0; page < head_; ++page) append(page);
  }
  void on_release(int32_t page) override { append(page); }
  void on_take(int32_t first, int32_t count) override {
    for (int32_t page = first; page < first + count; ++page) {
      next_[previous_[page]] = next_[page];
      previous_[next_[page]] = previous_[page];
    }
  }

  void choose(const PageRequest&, std::span<int32_t> out) override {
    int32_t page = next_[head_];
    for (int32_t& place : out) {
      TS_CHECK(page != head_, "more pages asked for than are free");
      place = page;
      page = next_[page];
    }
  }

  void check_invariants(std::span<const uint8_t> state) const override {
    std::vector<uint8_t> listed(state.size(), 0);
    for (int32_t page = next_[head_], before = head_;; before = page, page = next_[page]) {
      TS_CHECK(previous_[page] == before, "broken queue of free pages");
      if (page == head_) break;
      TS_CHECK(state[page] != 0 && !listed[page], "the queue holds a page that is not free");
      listed[page] = 1;
    }
    for (size_t page = 0; page < state.size(); ++page) TS_CHECK(listed[page] == (state[page] != 0), "free page not queued");
  }

 private:
  void append(int32_t page) {
    previous_[page] = previous_[head_];
    next_[page] = head_;
    next_[previous_[page]] = page;
    previous_[head_] = page;
  }

  int32_t head_ = 0;
  std::vector<int32_t> previous_, next_;  // [num_pages + 1]
};

}  // namespace

std::unique_ptr<PageAllocator> make_free_queue(const PlacementConfig&) { return std::make_unique<FreeQueue>(); }

}  // namespace tinyserve
