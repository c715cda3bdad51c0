#pragma once
#include "select/key_statistics.h"
#include "select/selector.h"

namespace tinyserve {

/// Gathers what keys and queries are like while a model reads; selects nothing. The backend's memory is the host's.
class StatisticsCollector final : public Selector {
 public:
  explicit StatisticsCollector(KeyStatistics& to) : to_(to) {}
  void appended(const AppendedRows& rows) override { to_.add(rows.layer, rows.qkv, rows.qkv_stride, rows.rows); }
  void attend(int32_t, const ops::AttentionArgs&, const ops::BatchLayout&, std::span<const ops::SparseRow>) override {}

 private:
  KeyStatistics& to_;
};

}  // namespace tinyserve
