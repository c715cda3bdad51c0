#include "kv/kv_manager.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tinyserve {

KvManager::KvManager(const KvConfig& config, int32_t num_pages, int32_t page_size, int64_t page_bytes)
    : config_(config),
      page_size_(page_size),
      page_bytes_(page_bytes),
      pool_(num_pages, config.placement),
      prefix_(config.prefix.enabled() ? std::make_unique<PrefixCache>(pool_, page_size, config.prefix) : nullptr),
      compactor_(config.compaction, pool_, prefix_.get()) {
  TS_CHECK(page_size > 0 && page_bytes > 0 && config.fragmentation.window_steps > 0);
  pool_.weigh_runs(config.fragmentation.sigma);
}

void KvManager::computed(PageTable& table, int32_t start, int32_t count) {
  const int32_t end = start + count;
  PageHolders& holders = pool_.holders();
  holders.filled(table, end, page_size_);
  holders.read(table, (end + page_size_ - 1) / page_size_);
}

void KvManager::end_step(double) {
  ++num_steps_;
  pool_.tick();
  if (num_steps_ % static_cast<uint64_t>(config_.fragmentation.window_steps) != 0) return;
  pool_.holders().close_window();
  for (size_t k = 0; k < tiers_.pages.size(); ++k) {
    recent_.pages[k] = recent_.pages[k] * std::exp2(-1 / AccessWindows::kHalfLifeWindows) + tiers_.pages[k] - seen_.pages[k];
    recent_.latency_s[k] = tiers_.latency_s[k];
  }
  seen_ = tiers_;
  total_fragmentation_ = fragmentation().total;
}

FragmentationReport KvManager::fragmentation() const {
  return report_fragmentation(config_.fragmentation, pool_, page_size_, page_bytes_, recent_);
}

const MovePlan& KvManager::compact(double now_s) {
  constexpr double kMostCredit_s = 0.002;
  constexpr int64_t kFirstBytes = 1 << 20;
  const int64_t step_bytes = config_.compaction.bytes_per_step;
  if (step_bytes <= 0) return compactor_.plan(0, 0);
  if (config_.compaction.random_moves > 0) return compactor_.plan(1, 0);
  credit_bytes_ = std::min(credit_bytes_ + step_bytes, std::max(step_bytes, page_bytes_));
  if (last_s_ >= 0) credit_s_ = std::min(credit_s_ + config_.compaction.time_share * (now_s - last_s_), kMostCredit_s);
  last_s_ = now_s;
  if (credit_s_ < 0) return compactor_.plan(0, 0);
  int64_t bytes = credit_bytes_;
  // What the time allowed is enough for, at the speed measured; a little before anything is.
  if (measured_)
    bytes = std::min(bytes, bytes_per_s_ > 0 ? static_cast<int64_t>(std::max(credit_s_, 0.0) * bytes_per_s_) : std::max(kFirstBytes, page_bytes_));
  if (credit_s_ >= kMostCredit_s) bytes = std::max(bytes, page_bytes_);  // else a page may be too large for ever
  const auto budget = static_cast<int32_t>(std::min<int64_t>(bytes / page_bytes_, pool_.num_pages()));
  const MovePlan& plan = compactor_.plan(budget, total_fragmentation_);
  moved_bytes_ = static_cast<int64_t>(plan.moves.size() + plan.displaced.size()) * page_bytes_;
  credit_bytes_ -= moved_bytes_;
  return plan;
}

void KvManager::compacted(double seconds) {
  measured_ = seconds > 0;
  credit_s_ -= seconds;
  if (measured_ && moved_bytes_ > 0) {
    const double rate = static_cast<double>(moved_bytes_) / seconds;
    bytes_per_s_ = bytes_per_s_ > 0 ? bytes_per_s_ + 0.1 * (rate - bytes_per_s_) : rate;
  }
  moved_bytes_ = 0;
  compactor_.stats().seconds += seconds;
}

void KvManager::check_invariants() const {
  pool_.check_invariants();
  if (prefix_) prefix_->check_invariants();
  pool_.holders().check_invariants();
}

}  // namespace tinyserve
