#include "kv/reuse_model.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tinyserve {
namespace {

constexpr int32_t kEpochsPerEstimate = 8;
// What was seen counts half after 34 estimates: some 17 times the pool. Shorter memories did no better on the traces.
constexpr float kForget = 0.98f;
constexpr double kFirstHazard = 0.05f;  // of a new page in its first epoch, before anything is known

}  // namespace

ReuseModel::ReuseModel(int32_t num_pages)
    : pages_per_epoch_(std::max(1, num_pages / kEpochsPerPool)),
      prior_pages_(20 + static_cast<float>(num_pages) / 100),
      waiting_(kKinds) {
  for (int32_t age = 0; age < kAges; ++num_buckets_) {
    TS_CHECK(num_buckets_ < kBuckets);
    const int32_t width = std::max(1, static_cast<int32_t>(std::exp2(num_buckets_ / 4.0 - 1)));
    begin_[num_buckets_] = age;
    for (int32_t i = 0; i < width && age < kAges; ++i, ++age) bucket_[age] = static_cast<uint8_t>(num_buckets_);
  }
  begin_[num_buckets_] = kAges;
  estimate();
}

bool ReuseModel::advance() {
  if (++pages_ < pages_per_epoch_) return false;
  pages_ = 0;
  for (int32_t kind = 0; kind < kKinds; ++kind) {
    for (int32_t age = 0; age < kAges; ++age)
      observed_[kind][bucket_[age]] += static_cast<float>(waiting_[kind][(epoch_ - static_cast<uint32_t>(age)) % kAges]);
  }
  ++epoch_;
  for (auto& waiting : waiting_) {  // the oldest cell is needed for the new epoch: its pages join the next oldest
    int32_t& oldest = waiting[epoch_ % kAges];
    waiting[(epoch_ + 1) % kAges] += oldest;
    oldest = 0;
  }
  if (epoch_ % kEpochsPerEstimate == 0) {
    estimate();
    for (Table* table : {&observed_, &reused_}) {
      for (auto& row : *table) {
        for (float& x : row) x *= kForget;
      }
    }
  }
  return true;
}

void ReuseModel::reused(uint8_t kind, uint32_t since) {
  lost(kind, since);
  reused_[kind][bucket_[age(since)]] += 1;
}

void ReuseModel::lost(uint8_t kind, uint32_t since) {
  int32_t& count = cell(kind, since);
  TS_CHECK(count > 0, "a page that was not waiting");
  --count;
}

/// Values from hazards. Few observations are helped out by what is known of all kinds together, and that by the hazard
/// of the age before, falling as 1/age.
void ReuseModel::estimate() {
  using Row = std::array<double, kBuckets>;
  const auto middle = [&](int32_t b) { return 0.5 * (begin_[b] + begin_[b + 1]); };
  Row all{}, all_observed{}, all_reused{};
  for (int32_t kind = 0; kind < kKinds; ++kind) {
    for (int32_t b = 0; b < num_buckets_; ++b) all_observed[b] += observed_[kind][b], all_reused[b] += reused_[kind][b];
  }
  for (int32_t b = 0; b < num_buckets_; ++b) {
    const double prior = b == 0 ? kFirstHazard : all[b - 1] * middle(b - 1) / middle(b);
    all[b] = std::min(1.0, (all_reused[b] + prior_pages_ * prior) / (all_observed[b] + prior_pages_));
  }
  for (int32_t kind = 0; kind < kKinds; ++kind) {
    double seen = 0, expected = 0;
    for (int32_t b = 0; b < num_buckets_; ++b) seen += reused_[kind][b], expected += observed_[kind][b] * all[b];
    const double scale = (seen + 5) / (expected + 5);  // this kind against all
    Row used{}, held{}, stays{};                      // within a bucket: P(used), E[epochs held], P(unused)
    for (int32_t b = 0; b < num_buckets_; ++b) {
      const double prior = std::min(1.0, all[b] * scale);
      const double hazard =
          std::clamp((reused_[kind][b] + prior_pages_ * prior) / (observed_[kind][b] + prior_pages_), 1e-9, 1.0);
      stays[b] = std::pow(1 - hazard, begin_[b + 1] - begin_[b]);
      used[b] = 1 - stays[b];
      held[b] = used[b] / hazard;
    }
    for (int32_t from = 0; from < num_buckets_; ++from) {
      double best = 0, uses = 0, time = 0, alive = 1;
      for (int32_t b = from; b < num_buckets_; ++b) {
        uses += alive * used[b];
        time += alive * held[b];
        alive *= stays[b];
        best = std::max(best, uses / time);
      }
      values_[kind][from] = static_cast<float>(best * kEpochsPerPool);
    }
  }
}

}  // namespace tinyserve
