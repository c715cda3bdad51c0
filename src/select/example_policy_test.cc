// The policy that CONTRIBUTING.md shows, as it stands there (CMakeLists.txt takes it out), asked once.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/thread_pool.h"

#include <example_policy.inc>

namespace tinyserve {
namespace {

TEST(ExamplePolicy, ReadsThePageWhoseNewestKeyTheQueryLikes) {
  constexpr int32_t kDim = 16, kPage = 16, kPages = 7, kLiked = 3;
  // Keys are zero but for the newest of one page; a page's values are its number.
  std::vector<float> k(kPages * kPage * kDim), v(k.size()), q(kDim, 1.0f), out(kDim);
  std::fill_n(k.begin() + ((kLiked + 1) * kPage - 1) * kDim, kDim, 2.0f);
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i / (kPage * kDim));
  std::vector<int32_t> table(kPages);
  std::iota(table.begin(), table.end(), 0);
  const int32_t position = kPages * kPage - 1, tokens = position + 1, cu[] = {0, 1};
  const int64_t slot = position;
  const ops::KvLayer cache{.k = reinterpret_cast<std::byte*>(k.data()),
                           .v = reinterpret_cast<std::byte*>(v.data()),
                           .dtype = DType::kF32,
                           .num_pages = kPages,
                           .kv_heads = 1,
                           .page_size = kPage,
                           .head_dim = kDim};
  const ops::BatchLayout batch{.num_seqs = 1,
                               .num_tokens = 1,
                               .cu_query_lens = cu,
                               .kv_lens = &tokens,
                               .page_table = table.data(),
                               .page_table_stride = kPages,
                               .positions = &position,
                               .slots = &slot};
  ThreadPool pool(1);
  const auto ops = ops::make_ops("ref", pool);
  const SelectionConfig config;
  const auto selector = make_newest_key({.ops = *ops, .config = config});
  const ops::SparseRow rows[] = {{.row = 0, .seq = 0, .position = position, .exact = kPage}};
  selector->begin_step(1);
  selector->attend(0, {.q = q.data(), .q_stride = kDim, .num_heads = 1, .scale = 0.25f, .cache = cache, .out = out.data(), .out_stride = kDim}, batch,
                   rows);
  // One key has a logit of 8, the other 47 tokens of the first, the liked and the newest page have 0.
  const double liked = std::exp(8.0), want = (kLiked * (liked + kPage - 1) + (kPages - 1) * kPage) / (liked + 3 * kPage - 1);
  for (const float x : out) EXPECT_NEAR(x, want, 1e-4);
  EXPECT_EQ(selector->accounts()[0].bytes, 3 * kPage * 2 * kDim * 4 + kPages * kDim * 2);
}

}  // namespace
}  // namespace tinyserve
