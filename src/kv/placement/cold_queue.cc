#include "kv/placement/cold_queue.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tinyserve {

ColdQueue::ColdQueue(int32_t num_pages, double width)
    : num_pages_(num_pages), width_(width), previous_(num_pages + kBuckets, -1), next_(num_pages + kBuckets, -1) {
  for (int32_t h = num_pages; h < num_pages + kBuckets; ++h) previous_[h] = next_[h] = h;
}

/// Buckets before `base` pour into it, oldest first.
void ColdQueue::advance(int64_t base) {
  for (int64_t steps = std::min<int64_t>(base - base_, kBuckets), bucket = base_; steps > 0; --steps, ++bucket) {
    const int32_t from = head(bucket), to = head(steps == 1 ? base : bucket + 1);
    if (from == to || next_[from] == from) continue;
    const int32_t first = next_[from], last = previous_[from];
    next_[last] = next_[to];
    previous_[next_[to]] = last;
    next_[to] = first;
    previous_[first] = to;
    previous_[from] = next_[from] = from;
  }
  base_ = base;
  lowest_ = std::max(lowest_, base);
}

void ColdQueue::add(int32_t page, double heat_time, double now) {
  const int64_t base = static_cast<int64_t>(now / width_) - (kBuckets - kFuture);
  if (base > base_) advance(base);
  const int64_t bucket = std::clamp<int64_t>(static_cast<int64_t>(std::floor(heat_time / width_)), base_, base_ + kBuckets - 1);
  lowest_ = std::min(lowest_, bucket);
  const int32_t h = head(bucket);
  previous_[page] = previous_[h];
  next_[page] = h;
  next_[previous_[page]] = page;
  previous_[h] = page;
}

void ColdQueue::remove(int32_t page) {
  next_[previous_[page]] = next_[page];
  previous_[next_[page]] = previous_[page];
  next_[page] = -1;
}

int32_t ColdQueue::first() const {
  for (; lowest_ < base_ + kBuckets; ++lowest_) {
    const int32_t h = head(lowest_);
    if (next_[h] != h) return next_[h];
  }
  return -1;
}

int32_t ColdQueue::after(int32_t page) const {
  int32_t next = next_[page];
  while (next >= num_pages_) {  // a head: on to the next bucket
    const int32_t following = num_pages_ + ((next - num_pages_ + 1) & (kBuckets - 1));
    if (following == head(base_)) return -1;
    next = next_[following];
  }
  return next;
}

void ColdQueue::check_invariants(std::span<const uint8_t> state) const {
  std::vector<uint8_t> queued(state.size(), 0);
  for (int64_t bucket = base_; bucket < base_ + kBuckets; ++bucket) {
    TS_CHECK(bucket >= lowest_ || next_[head(bucket)] == head(bucket));
    for (int32_t page = next_[head(bucket)], before = head(bucket);; before = page, page = next_[page]) {
      TS_CHECK(previous_[page] == before, "broken queue of cached pages");
      if (page == head(bucket)) break;
      TS_CHECK(page < num_pages_ && !queued[page]);
      queued[page] = 1;
    }
  }
  for (size_t page = 0; page < state.size(); ++page) {
    TS_CHECK(queued[page] == (state[page] == 1), "the cached pages are not the queued ones");
    TS_CHECK(contains(static_cast<int32_t>(page)) == (queued[page] == 1));
  }
}

}  // namespace tinyserve
