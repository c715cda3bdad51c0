#include "kv/page_pool.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tinyserve {

PagePool::PagePool(int32_t num_pages, const PlacementConfig& config)
    : pages_(num_pages),
      holds_(num_pages),
      heat_half_life_(config.heat_half_life),
      decay_(3 * 2048),
      runs_(num_pages),
      allocator_(make_page_allocator(config)),
      releases_wanted_(allocator_->wants_releases()),
      holders_(num_pages) {
  TS_CHECK(num_pages > 0);
  TS_CHECK(heat_half_life_ > 0);
  for (size_t i = 0; i < decay_.size(); ++i)
    decay_[i] = static_cast<float>(std::exp2(-std::ldexp(i % 2048, 11 * static_cast<int>(i / 2048)) / heat_half_life_));
  allocator_->attach(*this);
}

PagePool::~PagePool() { TS_CHECK(num_used_ == 0, "a page reference outlives its pool"); }

bool PagePool::allocate(const PageRequest& request, std::vector<PageRef>& out) {
  TS_CHECK(request.count >= 0);
  if (request.count > num_free()) return false;
  if (request.count == 0) return true;
  chosen_.resize(request.count);
  if (out.capacity() - out.size() < chosen_.size())  // what may throw comes before the first change
    out.reserve(std::max(2 * out.capacity(), out.size() + chosen_.size()));
  settle();
  allocator_->choose(request, chosen_);
  constexpr size_t kPagesPerLine = 64 / sizeof(Page);
  for (size_t i = 0; i < chosen_.size(); i += kPagesPerLine) __builtin_prefetch(&pages_[chosen_[i]], 1);
  const auto& had = request.sequence_pages;
  ++stats_.allocations;
  stats_.pages += request.count;
  if (!had.empty() && request.sequence && owner(had.back()) == request.sequence) {
    ++stats_.growths;
    stats_.contiguous_growths += chosen_[0] == had.back() + 1;
  }
  int32_t intervals = 0;
  for (size_t i = 0, end; i < chosen_.size(); i = end, ++intervals) {
    for (end = i + 1; end < chosen_.size() && chosen_[end] == chosen_[end - 1] + 1;) ++end;
    take(chosen_[i], static_cast<int32_t>(end - i));
    // All count as used before the first content goes: the listener may forget pages that follow in a chain.
    for (size_t k = i; k < end; ++k) {
      Hold& hold = holds_[chosen_[k]];
      TS_CHECK(hold.references == 0, "the allocator chose a used page");
      hold.references = 1;
      num_cached_ -= hold.kept;
    }
    for (size_t k = i; k < end; ++k) {
      if (holds_[chosen_[k]].kept) evict(chosen_[k]);
      pages_[chosen_[k]] = {.owner = request.sequence, .heat = 1, .heated = now_};
      out.push_back(PageRef(this, chosen_[k]));
    }
  }
  num_used_ += request.count;
  stats_.split_allocations += intervals > 1;
  allocator_->on_allocated(request, chosen_);
  return true;
}

void PagePool::take(int32_t first, int32_t count) {
  allocator_->on_take(first, count);
  runs_.take(first, count);
}

/// The content of a page goes, because somebody took the page.
void PagePool::evict(int32_t page) {
  if (listener_) listener_->on_evict(page);
  ++stats_.evictions;
  holds_[page].kept = 0;
}

PageRef PagePool::share(int32_t page) {
  Page& p = pages_[page];
  Hold& hold = holds_[page];
  if (hold.references == 0) {
    TS_CHECK(hold.kept, "an empty page has nothing to share");
    settle();
    take(page, 1);
    p.heat = decayed(p);
    ++num_used_;
    --num_cached_;
    if (listener_) listener_->on_reuse(page);
  }
  ++hold.references;
  p.heat += 1;
  return PageRef(this, page);
}

void PagePool::release(int32_t page) {
  Hold& hold = holds_[page];
  TS_CHECK(hold.references > 0);
  if (--hold.references > 0) return;
  --num_used_;
  if (page + 1 == returned_first_ && returned_first_ < returned_end_) {
    returned_first_ = page;
  } else if (page == returned_end_ && returned_first_ < returned_end_) {
    ++returned_end_;
  } else {
    settle();
    returned_first_ = page;
    returned_end_ = page + 1;
  }
  if (releases_wanted_) allocator_->on_release(page);
  if (!hold.kept) return;
  pages_[page].heated = now_;
  ++num_cached_;
  if (listener_) listener_->on_free(page);
}

void PagePool::keep(int32_t page) {
  TS_CHECK(holds_[page].references > 0, "only a page somebody holds has content worth keeping");
  holds_[page].kept = 1;
}

void PagePool::forget(int32_t page) {
  Hold& hold = holds_[page];
  if (!hold.kept) return;
  const bool free = hold.references == 0;
  if (free) settle();
  hold.kept = 0;
  if (free) {
    --num_cached_;
    allocator_->on_forget(page);
  }
}

void PagePool::touch(int32_t page) {
  TS_CHECK(holds_[page].references > 0, "only a page somebody holds can be used");
  pages_[page].heat += 1;
}

double PagePool::heat_time(int32_t page) const {
  const Page& p = pages_[page];
  const uint32_t since = holds_[page].references > 0 ? now_ : p.heated;
  return since + heat_half_life_ * std::log2(static_cast<double>(p.heat));
}

void PagePool::relocate(int32_t from, int32_t to) {
  TS_CHECK(holds_[from].references > 0 && holds_[to].references == 0, "a used page moves to a free one");
  settle();
  take(to, 1);
  holds_[to].references = 1;
  num_cached_ -= holds_[to].kept;
  if (holds_[to].kept) evict(to);
  pages_[to] = pages_[from];
  holds_[to] = std::exchange(holds_[from], Hold{});
  if (releases_wanted_) allocator_->on_release(from);
  runs_.put(from, 1);
  allocator_->on_put(from, 1);
}

void PagePool::discard(int32_t page) {
  TS_CHECK(holds_[page].references == 0, "the content of a used page is not to be overwritten");
  if (!holds_[page].kept) return;
  if (listener_) listener_->on_evict(page);
  ++stats_.evictions;
  forget(page);
}

void PagePool::check_invariants() const {
  settle();
  int32_t used = 0, cached = 0;
  std::vector<uint8_t> states(pages_.size());
  for (size_t page = 0; page < pages_.size(); ++page) {
    states[page] = static_cast<uint8_t>(state(static_cast<int32_t>(page)));
    used += states[page] == 0;
    cached += states[page] == 1;
    TS_CHECK(runs_.is_free(static_cast<int32_t>(page)) == (states[page] != 0), "the runs are not the free pages");
  }
  TS_CHECK(used == num_used_);
  TS_CHECK(cached == num_cached_);
  runs_.check_invariants();
  allocator_->check_invariants(states);
}

}  // namespace tinyserve
