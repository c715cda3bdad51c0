// Audits of sparse attention say the truth on average: over many draws, within the error that the draws themselves
// show.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/thread_pool.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/ops_cases.h"

namespace tinyserve::ops {
namespace {

#ifdef TINYSERVE_SANITIZED
constexpr int32_t kDraws = 500;
#else
constexpr int32_t kDraws = 1000;  // for each of two KV heads
#endif

class SelectionAudit : public testing::TestWithParam<std::string> {
 protected:
  ThreadPool pool{2};
  std::unique_ptr<Ops> ops = [this] {
    auto made = GetParam() == "avx2" ? make_cpu_ops(pool, {}, cpu::Isa::kAvx2) : make_ops(GetParam(), pool);
    made->reserve(case_limits());
    return made;
  }();

  // One query, asked many times.
  static SelectionProblem problem(int32_t exact, int32_t coded, float spread) {
    SelectionProblem p{.heads = 4,
                       .head_dim = 32,
                       .dtype = DType::kF32,
                       .length = 330,
                       .exact = exact,
                       .coded = coded,
                       .fine_divisor = 3,
                       .spread = spread,
                       .audit = 0x1234567,
                       .marked_ends = true};
    p.positions.assign(kDraws, 329);
    return p;
  }
};

struct Mean {
  double sum = 0, squares = 0;
  int64_t n = 0;
  void add(double x) { sum += x, squares += x * x, ++n; }
  double mean() const { return sum / n; }
  /// Five standard errors: one such test in a million fails by chance, and these draw the same numbers every time.
  double bound() const { return 5 * std::sqrt(std::max(0.0, squares / n - mean() * mean()) / n) + 2e-5; }
};

TEST_P(SelectionAudit, IsUnbiased) {
  struct Case {
    int32_t exact, coded;
    float spread;
  };
  for (const Case& c : {Case{0, 0, 1}, {16, 48, 1}, {16, 48, 2.5f}, {0, 100, 2}, {200, 0, 3}}) {
    const SelectionProblem p = problem(c.exact, c.coded, c.spread);
    const SelectionProblem::Result r = p.run(*ops);
    constexpr int32_t d = 32, group = 2, middle = 18;  // pages: 20 full ones, a sink and a recent one
    for (int32_t kv = 0; kv < 2; ++kv) {
      // The first channels of values are 1 at the ends, which are read exactly, and 0 between, in codes too: what comes
      // out is their share, once of the answer's sum of exponentials, once of the true one.
      double all = 0;
      for (int32_t h = kv * group; h < (kv + 1) * group; ++h) all += double{r.rows[h * d]} / r.dense[h * d] / group;
      Mean truth, page, token, pages, tokens;
      const SparseStats& first = r.stats[kv];
      for (int32_t t = 0; t < kDraws; ++t) {
        const SparseStats& s = r.stats[t * 2 + kv];
        EXPECT_EQ(s.exact_share, first.exact_share);
        const auto over = [](const SparseStats::Draw& draw, float mass) {
          return draw.probability > 0 ? double{mass} / draw.probability : 0;
        };
        truth.add(over(s.page, s.page.true_mass) + over(s.token, s.token.true_mass));
        page.add(over(s.page, s.page.counted));
        token.add(over(s.token, s.token.counted));
        pages.add(over(s.page, 1));
        tokens.add(over(s.token, 1));
      }
      EXPECT_NEAR(truth.mean(), all - first.exact_share, truth.bound());
      EXPECT_LT(truth.bound(), 0.05 + 0.2 * all);  // and says something
      EXPECT_NEAR(page.mean(), first.estimated_share, page.bound());
      EXPECT_NEAR(token.mean(), first.coded_share, token.bound());
      EXPECT_NEAR(pages.mean(), middle, pages.bound());
      EXPECT_NEAR(tokens.mean(), c.coded, tokens.bound());
    }
  }
}

TEST_P(SelectionAudit, ChangesNoAnswerAndCountsWhatItReads) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    SelectionProblem p{.dtype = dtype, .positions = {20, 640, 999, 999}, .audit = 99};
    const SelectionProblem::Result with = p.run(*ops);
    p.audit = 0;
    const SelectionProblem::Result without = p.run(*ops);
    EXPECT_EQ(0, std::memcmp(with.rows.data(), without.rows.data(), with.rows.size() * sizeof(float)));
    const double row = 64.0 * dtype_bytes(dtype);
    for (size_t i = 0; i < with.stats.size(); ++i) {
      const SparseStats &a = with.stats[i], &b = without.stats[i];
      EXPECT_EQ(b.page.probability, 0);
      EXPECT_EQ(b.token.probability, 0);
      const double rows = (a.bytes - b.bytes) / row;
      if (i < 2) {  // no page between the ends
        EXPECT_EQ(rows, 0);
        EXPECT_EQ(a.page.probability, 0);
        continue;
      }
      EXPECT_GE(rows, 1);  // a token, and what is left of a page
      EXPECT_LE(rows, 17);
      EXPECT_EQ(rows, std::floor(rows));
      EXPECT_GT(a.page.probability, 0);
      EXPECT_LE(a.page.probability, 1);
      EXPECT_GT(a.token.probability, 0);
    }
  }
}

// The same audit of the same row, whatever else is in the step.
TEST_P(SelectionAudit, FollowsFromItsBits) {
  SelectionProblem p{.positions = {999}, .audit = 5};
  const SelectionProblem::Result a = p.run(*ops), b = p.run(*ops);
  p.page_seed = 7;
  const SelectionProblem::Result moved = p.run(*ops);
  for (size_t i = 0; i < a.stats.size(); ++i) {
    EXPECT_EQ(0, std::memcmp(&a.stats[i], &b.stats[i], sizeof a.stats[i]));
    EXPECT_EQ(0, std::memcmp(&a.stats[i], &moved.stats[i], sizeof a.stats[i]));
  }
}

// Backends draw alike, but where rounding decides between two neighbours.
TEST_P(SelectionAudit, IsThatOfRef) {
  ThreadPool one{1};
  const auto ref = make_ops("ref", one);
  const SelectionProblem p = problem(16, 48, 1.5f);
  const std::vector<SparseStats> want = p.run(*ref).stats, got = p.run(*ops).stats;
  size_t same = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const auto near = [](float a, float b) { return std::abs(a - b) <= 2e-3f * std::abs(b) + 1e-7f; };
    const auto alike = [&](const SparseStats::Draw& a, const SparseStats::Draw& b) {
      return near(a.probability, b.probability) && near(a.true_mass, b.true_mass) && near(a.counted, b.counted);
    };
    same += alike(got[i].page, want[i].page) && alike(got[i].token, want[i].token);
  }
  EXPECT_GE(same, want.size() * 98 / 100);
}

TEST_P(SelectionAudit, NothingCodedIsNothingToDraw) {
  SelectionProblem p{.exact = 50, .coded = 0, .audit = 3};
  for (const SparseStats& s : p.run(*ops).stats) {
    EXPECT_EQ(s.token.probability, 0);
    EXPECT_EQ(s.token.true_mass, 0);
    EXPECT_GT(s.page.probability, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, SelectionAudit, testing::Values("ref", "cpu", "avx2"),
                         [](const auto& i) { return i.param; });

}  // namespace
}  // namespace tinyserve::ops
