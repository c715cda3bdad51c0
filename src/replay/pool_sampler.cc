#include "replay/pool_sampler.h"

#include <algorithm>
#include <numeric>

#include "engine/scheduler.h"

namespace tinyserve::replay {
namespace {

int32_t count_runs(std::span<const int32_t> pages) {
  int32_t runs = pages.empty() ? 0 : 1;
  for (size_t i = 1; i < pages.size(); ++i) runs += pages[i] != pages[i - 1] + 1;
  return runs;
}

/// Breaks that no placement avoids: of the sequences that go on differently after a page that they share, those of one
/// successor only can have it right behind. `successors`: (shared page, page after it), one a sequence; sorts.
int64_t forced_breaks(std::vector<std::pair<int32_t, int32_t>>& successors) {
  std::sort(successors.begin(), successors.end());
  int64_t breaks = 0;
  for (size_t i = 0; i < successors.size();) {
    int64_t all = 0, most = 0;
    const int32_t page = successors[i].first;
    while (i < successors.size() && successors[i].first == page) {
      int64_t alike = 0;
      for (const auto pair = successors[i]; i < successors.size() && successors[i] == pair; ++i) ++alike;
      all += alike;
      most = std::max(most, alike);
    }
    breaks += all - most;
  }
  return breaks;
}

}  // namespace

PoolSampler::PoolSampler(const PagePool& pool, const Scheduler& scheduler, int32_t page_size)
    : pool_(pool), scheduler_(scheduler), page_size_(page_size), filled_(pool.num_pages()), marks_(pool.num_pages(), 0) {}

Sample PoolSampler::take(bool steady) {
  Sample s;
  s.running = static_cast<int32_t>(scheduler_.running().size());
  s.waiting = static_cast<int32_t>(scheduler_.waiting().size());
  s.used = pool_.num_used();
  s.cached = pool_.num_cached();
  s.used_share = static_cast<double>(s.used) / pool_.num_pages();
  for (int32_t page = 0, run = 0; page <= pool_.num_pages(); ++page) {
    if (page < pool_.num_pages() && pool_.ref_count(page) == 0) {
      ++run;
    } else if (run > 0) {
      ++s.free_runs;
      s.largest_run = std::max(s.largest_run, run);
      run = 0;
    }
  }
  if (pool_.num_free() > 0) s.external_fragmentation = 1 - static_cast<double>(s.largest_run) / pool_.num_free();

  ++look_;
  int64_t filled = 0, runs = 0;
  successors_.clear();
  for (const Sequence* sequence : scheduler_.running()) {
    const auto pages = sequence->pages.pages();
    for (size_t i = 0; i < pages.size(); ++i) {
      const int32_t page = pages[i];
      if (i + 1 < pages.size() && pool_.ref_count(page) > 1) successors_.emplace_back(page, pages[i + 1]);
      const int32_t here = std::clamp(sequence->num_computed - static_cast<int32_t>(i) * page_size_, 0, page_size_);
      const int32_t before = marks_[page] == look_ ? filled_[page] : 0;  // shared: as far as any of them has it
      marks_[page] = look_;
      filled_[page] = std::max(before, here);
      filled += filled_[page] - before;
    }
    const int32_t own_runs = count_runs(pages);
    runs += own_runs;
    if (steady) {
      descriptors_.push_back(own_runs);
      sequence_pages_ += static_cast<int64_t>(pages.size());
    }
  }
  if (steady) forced_breaks_ += forced_breaks(successors_);
  if (s.running > 0) s.descriptors = static_cast<double>(runs) / s.running;
  if (s.used > 0) s.slot_utilisation = static_cast<double>(filled) / (static_cast<double>(s.used) * page_size_);
  return s;
}

void PoolSampler::summarize(Measurements& out) {
  if (descriptors_.empty()) return;
  std::sort(descriptors_.begin(), descriptors_.end());
  const auto total = std::accumulate(descriptors_.begin(), descriptors_.end(), int64_t{0});
  out.descriptors_mean = static_cast<double>(total) / static_cast<double>(descriptors_.size());
  out.descriptors_least = 1 + static_cast<double>(forced_breaks_) / static_cast<double>(descriptors_.size());
  out.descriptors_p99 = descriptors_[(descriptors_.size() * 99 + 99) / 100 - 1];
  out.pages_per_run = total > 0 ? static_cast<double>(sequence_pages_) / static_cast<double>(total) : 0;
}

}  // namespace tinyserve::replay
