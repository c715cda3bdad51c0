// The policies of evaluations against attention written out, and against the bytes they should count.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <random>

#include "base/thread_pool.h"
#include "select/policies.h"

namespace tinyserve {
namespace {

constexpr int32_t kHeads = 4, kKvHeads = 2, kDim = 16, kPage = 16, kTokens = 100, kMaxPages = 8;
constexpr int32_t kMiddle = 16, kMiddleEnd = 80;  // the first page, the newest full one and the unfinished one are read anyway

class Choosing : public testing::TestWithParam<const char*> {
 protected:
  Choosing() : k_(kMaxPages * kKvHeads * kPage * kDim), v_(k_.size()), q_(kHeads * kDim), out_(q_.size()), table_{5, 0, 7, 2, 6, 1, 3} {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (auto* x : {&k_, &v_, &q_})
      for (float& f : *x) f = normal(random);
    config_.policy = GetParam();
  }

  const float* row(const std::vector<float>& x, int32_t kv_head, int32_t p) const {
    return x.data() + ((table_[static_cast<size_t>(p / kPage)] * kKvHeads + kv_head) * kPage + p % kPage) * kDim;
  }
  /// What the head should answer when it reads `positions`.
  std::vector<double> dense(int32_t head, const std::vector<int32_t>& positions) const {
    std::vector<double> out(kDim);
    double sum = 0;
    for (const int32_t p : positions) {
      double logit = 0;
      for (int32_t c = 0; c < kDim; ++c) logit += q_[head * kDim + c] * row(k_, head / 2, p)[c] / 4;
      sum += std::exp(logit);
      for (int32_t c = 0; c < kDim; ++c) out[c] += std::exp(logit) * row(v_, head / 2, p)[c];
    }
    for (double& x : out) x /= sum;
    return out;
  }
  SelectionAccount attend(int32_t position, int32_t exact) {
    const auto selector = make_selector({.ops = *ops_, .config = config_});
    const ops::KvLayer cache{.k = reinterpret_cast<std::byte*>(k_.data()), .v = reinterpret_cast<std::byte*>(v_.data()), .dtype = DType::kF32,
                             .num_pages = kMaxPages, .kv_heads = kKvHeads, .page_size = kPage, .head_dim = kDim};
    const int32_t cu[] = {0, 1}, kv_len = position + 1;
    const int64_t slot = 0;
    const ops::BatchLayout batch{.num_seqs = 1, .num_tokens = 1, .cu_query_lens = cu, .kv_lens = &kv_len, .page_table = table_.data(),
                                 .page_table_stride = kMaxPages, .positions = &position, .slots = &slot};
    const ops::SparseRow rows[] = {{.row = 0, .seq = 0, .position = position, .exact = exact}};
    selector->begin_step(1);
    selector->attend(0, {.q = q_.data(), .q_stride = kHeads * kDim, .num_heads = kHeads, .scale = 0.25f, .cache = cache, .out = out_.data(), .out_stride = kHeads * kDim},
                     batch, rows);
    return selector->accounts()[0];
  }
  /// Bytes of two BF16 vectors for every full page.
  static double summaries(int32_t tokens) { return std::string(GetParam()) == "oracle" ? 0 : kKvHeads * (tokens / kPage) * 2 * kDim * 2; }
  void expect_out(const std::function<std::vector<int32_t>(int32_t head)>& positions) const {
    for (int32_t h = 0; h < kHeads; ++h) {
      const std::vector<double> want = dense(h, positions(h));
      for (int32_t c = 0; c < kDim; ++c) EXPECT_NEAR(out_[h * kDim + c], want[c], 1e-5) << "head " << h;
    }
  }
  static std::vector<int32_t> all(int32_t n) {
    std::vector<int32_t> out(n);
    std::iota(out.begin(), out.end(), 0);
    return out;
  }

  ThreadPool pool_{1};
  std::unique_ptr<ops::Ops> ops_ = ops::make_ops("ref", pool_);
  std::vector<float> k_, v_, q_, out_;
  std::vector<int32_t> table_;
  SelectionConfig config_;
};

TEST_P(Choosing, IsDenseWhenTheBudgetIsEnough) {
  for (const int32_t tokens : {1, 16, 33, kTokens}) {
    const SelectionAccount a = attend(tokens - 1, 1000);
    expect_out([&](int32_t) { return all(tokens); });
    EXPECT_EQ(a.reads, kKvHeads);
    EXPECT_EQ(a.bytes, a.dense_bytes + summaries(tokens));
    EXPECT_EQ(a.dense_bytes, kKvHeads * tokens * 2 * kDim * 4);
  }
}

TEST_P(Choosing, ReadsThePageThatMatters) {
  // One page of the middle whose keys all heads of a group like much more than any other's.
  for (int32_t kv = 0; kv < kKvHeads; ++kv)
    for (int32_t p = 48; p < 64; ++p)
      for (int32_t c = 0; c < kDim; ++c) const_cast<float*>(row(k_, kv, p))[c] = 3 * (q_[kv * 2 * kDim + c] + q_[(kv * 2 + 1) * kDim + c]) + 0.01f * static_cast<float>(p);
  const SelectionAccount a = attend(kTokens - 1, kPage);
  expect_out([](int32_t) {
    std::vector<int32_t> out = all(kMiddle);
    for (int32_t p = 48; p < 64; ++p) out.push_back(p);
    for (int32_t p = kMiddleEnd; p < kTokens; ++p) out.push_back(p);
    return out;
  });
  const double kept = kKvHeads * (16 + 16 + 20) * 2 * kDim * 4;
  EXPECT_EQ(a.bytes, kept + summaries(kTokens));
  EXPECT_EQ(a.dense_bytes, kKvHeads * kTokens * 2 * kDim * 4);
}

INSTANTIATE_TEST_SUITE_P(Policies, Choosing, testing::Values("quest", "moments", "oracle"));

}  // namespace
}  // namespace tinyserve
