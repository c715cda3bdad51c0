#include "kv/heat_order.h"

#include <algorithm>

namespace tinyserve {

HeatOrder::HeatOrder(int32_t num_pages, const ReuseModel& model) : model_(model), lists_(num_pages, kWorthless + 1) {
  for (uint8_t kind = 0; kind < ReuseModel::kKinds; ++kind) {
    for (int32_t b = 0; b < model.num_buckets(); ++b) ranking_.emplace_back(kind, static_cast<uint8_t>(b));
  }
  on_epoch();
}

void HeatOrder::add(int32_t page, uint8_t kind, uint32_t since) {
  if (kind == kNoUse) return lists_.push_back(kWorthless, page);
  const int32_t age = model_.age(since);
  lists_.push_back(list(kind, model_.epoch() - static_cast<uint32_t>(age)), page);
  first_ = std::min<size_t>(first_, rank_[kind][model_.bucket(age)]);
}

void HeatOrder::on_epoch() {
  // As in the model: the oldest list makes room for the epoch that begins.
  for (uint8_t kind = 0; kind < ReuseModel::kKinds; ++kind)
    lists_.prepend_all(list(kind, model_.epoch() + 1), list(kind, model_.epoch()));
  const auto value = [&](const auto& cell) { return model_.bucket_value(cell.first, cell.second); };
  std::sort(ranking_.begin(), ranking_.end(), [&](const auto& a, const auto& b) {
    return value(a) != value(b) ? value(a) < value(b) : a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  for (size_t i = 0; i < ranking_.size(); ++i) rank_[ranking_[i].first][ranking_[i].second] = static_cast<uint16_t>(i);
  first_ = 0;
}

/// The page of this kind and age that waits longest, or -1.
int32_t HeatOrder::first_of(uint8_t kind, int32_t bucket, int32_t younger_than) const {
  for (int32_t age = std::min(model_.bucket_begin(bucket + 1), younger_than) - 1; age >= model_.bucket_begin(bucket); --age) {
    const int32_t page = lists_.front(list(kind, model_.epoch() - static_cast<uint32_t>(age)));
    if (page >= 0) return page;
  }
  return -1;
}

int32_t HeatOrder::after(int32_t page, uint8_t kind, uint32_t since) const {
  int32_t next = lists_.next(page);
  size_t rank = 0;
  if (next < 0 && kind != kNoUse) {
    const int32_t age = model_.age(since), bucket = model_.bucket(age);
    next = first_of(kind, bucket, age);
    rank = rank_[kind][bucket] + size_t{1};
  }
  for (; next < 0 && rank < ranking_.size(); ++rank) next = first_of(ranking_[rank].first, ranking_[rank].second);
  return next;
}

int32_t HeatOrder::coldest() {
  int32_t page = lists_.front(kWorthless);
  for (; page < 0 && first_ < ranking_.size(); ++first_) {
    page = first_of(ranking_[first_].first, ranking_[first_].second);
    if (page >= 0) break;
  }
  return page;
}

}  // namespace tinyserve
