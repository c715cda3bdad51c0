// The audit of sparse attention against attention recomputed: what the operation draws, what an answer makes of it.

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/thread_pool.h"
#include "kv/kv_storage.h"
#include "select/key_statistics.h"
#include "select/policies.h"

namespace tinyserve {
namespace {

constexpr int32_t kLayers = 2, kHeads = 4, kKvHeads = 2, kDim = 32, kPage = 16, kTokens = 640, kWidth = (kHeads + 2 * kKvHeads) * kDim;
constexpr int32_t kSteps = 32, kAnswers = 600;  // fewer would tell too little
constexpr float kScale = 0.12f;
constexpr KvShape kShape{.num_layers = kLayers, .kv_heads = kKvHeads, .head_dim = kDim, .dtype = DType::kBF16};

/// One sequence's queries, keys and values: keys of few large axes, queries that move slowly from step to step.
class SelectorAudit : public ::testing::Test {
 protected:
  SelectorAudit() {
    ops_->reserve({.max_tokens = kSteps, .max_seqs = 1, .max_context = kTokens + kSteps, .max_width = kWidth, .max_heads = kHeads, .max_head_dim = kDim});
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    KeyStatistics statistics(kLayers, kHeads, kKvHeads, kDim);
    for (int32_t l = 0; l < kLayers; ++l) {
      std::vector<float>& x = qkv_.emplace_back(static_cast<size_t>(kTokens + kSteps) * kWidth);
      for (size_t i = 0; i < x.size(); ++i) {
        const bool query = i % kWidth < kHeads * kDim;
        x[i] = normal(random) * (i % kDim < 6 ? 2.0f : 0.7f);
        if (query && i >= kWidth) x[i] = 0.97f * x[i - kWidth] + 0.24f * x[i];
      }
      statistics.add(l, x.data(), kWidth, kTokens);
    }
    maps_ = SelectionMaps::fit(statistics, {true, true});
    storage_ = std::make_unique<KvStorage>(*ops_, kShape, kPage, kPages, CodeShape{.layers = {true, true}, .values = true});
    for (int32_t p = 0; p < kPages; ++p) table_.push_back(p);
    SelectionConfig config{.policy = "tinyserve"};
    selector_ = make_selector({.ops = *ops_, .config = config, .maps = &maps_});
    config.audit_dense = 1;
    checking_ = make_selector({.ops = *ops_, .config = config, .maps = &maps_});
    selector_->begin_step(1);
    for (int32_t l = 0; l < kLayers; ++l) {
      store(l);
      selector_->appended({.layer = l, .cache = &storage_->layers()[static_cast<size_t>(l)], .full_pages = table_});
    }
  }

  void store(int32_t layer) {
    const ops::KvLayer& cache = storage_->layers()[static_cast<size_t>(layer)];
    for (int32_t t = 0; t < kTokens + kSteps; ++t)
      for (int32_t h = 0; h < kKvHeads; ++h)
        for (int32_t i = 0; i < kDim; ++i) {
          const float* row = qkv_[static_cast<size_t>(layer)].data() + static_cast<size_t>(t) * kWidth + (kHeads + h) * kDim + i;
          const size_t at = (static_cast<size_t>(t / kPage * kKvHeads + h) * kPage + static_cast<size_t>(t % kPage)) * kDim + static_cast<size_t>(i);
          reinterpret_cast<BFloat16*>(cache.k)[at] = to_bfloat16(row[0]);
          reinterpret_cast<BFloat16*>(cache.v)[at] = to_bfloat16(row[kKvHeads * kDim]);
        }
  }

  /// One answer: a query at each of kSteps positions, all layers.
  AuditSums answer(Selector& selector, uint64_t seed, float top_p = 0, int32_t counted = 0) {
    Audit audit(seed);
    const SequenceSelection selection[] = {{.from = 0, .exact = 24, .coded = 48, .top_p = top_p, .audit = &audit, .counted = counted}};
    const int32_t cu[] = {0, kSteps}, kv_len = kTokens + kSteps;
    std::vector<int32_t> positions;
    std::vector<int64_t> slots(kSteps);
    std::vector<ops::SparseRow> rows;
    for (int32_t s = 0; s < kSteps; ++s) positions.push_back(kTokens + s), rows.push_back(selection[0].row(s, 0, kTokens + s));
    const ops::BatchLayout batch = ops_->begin_step({.num_seqs = 1, .num_tokens = kSteps, .cu_query_lens = cu, .kv_lens = &kv_len, .page_table = table_.data(),
                                                    .page_table_stride = kPages, .positions = positions.data(), .slots = slots.data()});
    selector.begin_step(1, selection);
    out_.resize(static_cast<size_t>(kSteps) * kHeads * kDim);
    for (int32_t l = 0; l < kLayers; ++l)
      selector.attend(l, {.q = qkv_[static_cast<size_t>(l)].data() + static_cast<size_t>(kTokens) * kWidth, .q_stride = kWidth, .num_heads = kHeads,
                          .scale = kScale, .cache = storage_->layers()[static_cast<size_t>(l)], .out = out_.data(), .out_stride = kHeads * kDim},
                      batch, rows);
    account_ = selector.accounts()[0];
    return audit.sums();
  }

  static constexpr int32_t kPages = (kTokens + kSteps + kPage - 1) / kPage;
  ThreadPool pool_{1};
  std::unique_ptr<ops::Ops> ops_ = ops::make_ops("cpu", pool_);
  std::vector<std::vector<float>> qkv_;  // [layer][position, kWidth]
  SelectionMaps maps_;
  std::unique_ptr<KvStorage> storage_;
  std::vector<int32_t> table_;
  std::unique_ptr<Selector> selector_, checking_;
  std::vector<float> out_;
  SelectionAccount account_;
};

TEST_F(SelectorAudit, HoldsWhatDenseAttentionSays) {
  const AuditSums truth = answer(*checking_, 0);
  ASSERT_EQ(truth.checked, truth.reads);
  ASSERT_EQ(truth.reads, kLayers * kKvHeads * kSteps);
  const auto n = static_cast<double>(truth.reads);
  const double estimated = truth.true_estimated / n, coded = truth.true_coded / n;
  EXPECT_GT(estimated, 0.02);
  EXPECT_GT(coded, 0.02) << "or there is little to audit";
  EXPECT_LT(truth.output_error / n, 0.5);
  double sums[2] = {}, squares[2] = {};
  int32_t held[2] = {};
  for (int32_t i = 0; i < kAnswers; ++i) {
    const AuditSums a = answer(*selector_, static_cast<uint64_t>(i) + 1);
    const Interval e = a.estimated_error.interval(a.reads), c = a.coded_error.interval(a.reads);
    const double found[2] = {a.estimated / n + e.mean, a.coded / n + c.mean}, right[2] = {estimated, coded};
    const Interval intervals[2] = {e, c};
    for (int k = 0; k < 2; ++k) {
      sums[k] += found[k], squares[k] += found[k] * found[k];
      const double error = right[k] - (k == 0 ? a.estimated : a.coded) / n;
      held[k] += intervals[k].low <= error && error <= intervals[k].high;
    }
  }
  for (int k = 0; k < 2; ++k) {
    const double mean = sums[k] / kAnswers, deviation = std::sqrt((squares[k] / kAnswers - mean * mean) / kAnswers);
    EXPECT_NEAR(mean, k == 0 ? estimated : coded, 4 * deviation + 1e-5) << k;
    EXPECT_NEAR(static_cast<double>(held[k]) / kAnswers, 0.95, 0.025) << k;
  }
}

TEST_F(SelectorAudit, WhatWasCountedIsNotCountedAgain) {
  answer(*selector_, 1);
  EXPECT_EQ(account_.reads, kLayers * kKvHeads * kSteps);
  const std::vector<float> whole = out_;
  const AuditSums rest = answer(*selector_, 1, 0, kTokens + kSteps - 3);
  EXPECT_EQ(account_.reads, kLayers * kKvHeads * 3);
  EXPECT_EQ(rest.reads, account_.reads);
  EXPECT_EQ(out_, whole);
}

TEST_F(SelectorAudit, ATopPReadsFewerTokensWhereFewHaveTheMass) {
  answer(*selector_, 1);
  const SelectionAccount all = account_;
  answer(*selector_, 1, 0.05f);
  EXPECT_LT(account_.exact_share, all.exact_share);
  EXPECT_LT(account_.bytes, all.bytes);
}

}  // namespace
}  // namespace tinyserve
