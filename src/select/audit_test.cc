#include "select/audit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace tinyserve {
namespace {

constexpr int32_t kLayers = 4, kHeads = 2, kPages = 60;
#ifdef TINYSERVE_SANITIZED
constexpr int32_t kAnswers = 300, kSteps = 24;
#else
constexpr int32_t kAnswers = 1500, kSteps = 64;
#endif

/// What a read estimated, page by page, and what that weighs in truth. Layers and heads differ by tens, neighbouring
/// steps by little.
struct Read {
  std::vector<double> counted, truth, probability, cumulative;
};

std::vector<Read> reads(uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<Read> all;
  std::vector<std::vector<double>> level(kLayers * kHeads, std::vector<double>(kPages)), error = level;
  std::vector<double> size(kLayers * kHeads);
  for (double& x : size) x = 0.02 * std::exp(1.5 * normal(random));
  for (auto* state : {&level, &error})
    for (auto& pages : *state)
      for (double& x : pages) x = normal(random);
  for (int32_t step = 0; step < kSteps; ++step)
    for (int32_t i = 0; i < kLayers * kHeads; ++i) {
      Read r;
      double sum = 0;
      for (int32_t p = 0; p < kPages; ++p) {
        for (auto* state : {&level, &error}) {
          double& x = (*state)[static_cast<size_t>(i)][static_cast<size_t>(p)];
          x = 0.95 * x + std::sqrt(1 - 0.95 * 0.95) * normal(random);
        }
        r.counted.push_back(std::exp(1.5 * level[static_cast<size_t>(i)][static_cast<size_t>(p)]));
        sum += r.counted.back();
      }
      double so_far = 0;
      for (int32_t p = 0; p < kPages; ++p) {
        double& counted = r.counted[static_cast<size_t>(p)];
        r.probability.push_back(0.9 * counted / sum + 0.1 / kPages);
        r.cumulative.push_back(so_far += r.probability.back());
        counted *= size[static_cast<size_t>(i)] / sum;
        r.truth.push_back(counted * std::exp(0.1 + 0.35 * error[static_cast<size_t>(i)][static_cast<size_t>(p)]));
      }
      all.push_back(std::move(r));
    }
  return all;
}

ops::SparseStats drawn(const Read& r, uint64_t bits) {
  const double u = static_cast<double>(bits >> 11) * 0x1p-53;
  const auto p = std::min<size_t>(std::upper_bound(r.cumulative.begin(), r.cumulative.end(), u) - r.cumulative.begin(),
                                  kPages - 1);
  ops::SparseStats s;
  s.estimated_share = static_cast<float>(std::accumulate(r.counted.begin(), r.counted.end(), 0.0));
  s.page = {.probability = static_cast<float>(r.probability[p]),
            .true_mass = static_cast<float>(r.truth[p]),
            .counted = static_cast<float>(r.counted[p])};
  return s;
}

AuditSums audited(const std::vector<Read>& all, uint64_t seed) {
  Audit audit(seed);
  for (int32_t step = 0; step < kSteps; ++step)
    for (int32_t layer = 0; layer < kLayers; ++layer)
      for (int32_t head = 0; head < kHeads; ++head) {
        const uint64_t bits = Audit::bits_of_layer(Audit::bits_of_layer(audit.bits(step), layer), 100 + head);
        audit.add(layer, head, drawn(all[static_cast<size_t>((step * kLayers + layer) * kHeads + head)], bits));
      }
  return audit.sums();
}

TEST(Audit, IsUnbiasedAndItsIntervalsHoldTheTruthAsOftenAsTheySay) {
  for (const uint32_t data : {1u, 2u, 3u}) {
    const std::vector<Read> all = reads(data);
    double truth = 0;
    for (const Read& r : all)
      truth += std::accumulate(r.truth.begin(), r.truth.end(), 0.0) -
               std::accumulate(r.counted.begin(), r.counted.end(), 0.0);
    truth /= static_cast<double>(all.size());
    double sum = 0, squares = 0;
    int32_t held = 0;
    for (int32_t answer = 0; answer < kAnswers; ++answer) {
      const AuditSums sums = audited(all, static_cast<uint64_t>(answer));
      ASSERT_EQ(sums.reads, static_cast<int64_t>(all.size()));
      ASSERT_EQ(sums.estimated_error.draws, sums.reads);
      const Interval i = sums.estimated_error.interval(sums.reads);
      sum += i.mean, squares += i.mean * i.mean;
      held += i.low <= truth && truth <= i.high;
    }
    const double mean = sum / kAnswers, deviation = std::sqrt((squares / kAnswers - mean * mean) / kAnswers);
    EXPECT_NEAR(mean, truth, 4 * deviation) << "data " << data;
    // Of 1,500 intervals that hold it in 95 of 100 cases, 93 to 97 of 100 do but for one run in thousands.
    const double slack = kAnswers < 1000 ? 0.03 : 0.02;
    EXPECT_NEAR(static_cast<double>(held) / kAnswers, 0.95, slack) << "data " << data;
  }
}

TEST(Audit, DrawsRepeatAndDiffer) {
  Audit a(7), b(7), c(8);
  EXPECT_EQ(a.bits(3), b.bits(3));
  EXPECT_NE(a.bits(3), a.bits(4));
  EXPECT_NE(a.bits(3), c.bits(3));
  EXPECT_NE(Audit::bits_of_layer(a.bits(3), 0), Audit::bits_of_layer(a.bits(3), 1));
  b.follow(5);
  EXPECT_NE(a.bits(3), b.bits(3));
  a.follow(5);
  EXPECT_EQ(a.bits(3), b.bits(3));
}

TEST(Audit, ASeriesOfItsOwnForEachLayerAndHead) {
  Audit audit(1);
  const auto read = [](float error) {
    ops::SparseStats s;
    s.estimated_share = 0.5f;
    s.page = {.probability = 0.5f, .true_mass = 0.25f + error / 2, .counted = 0.25f};
    return s;
  };
  for (int32_t step = 0; step < 10; ++step) audit.add(0, 0, read(0.125f)), audit.add(3, 1, read(-0.25f));
  const AuditSums sums = audit.sums();
  EXPECT_EQ(sums.reads, 20);
  EXPECT_DOUBLE_EQ(sums.estimated_error.sum, 10 * 0.125 - 10 * 0.25);
  EXPECT_DOUBLE_EQ(sums.estimated_error.variance, 0) << "that heads differ is no uncertainty";
  EXPECT_EQ(sums.coded_error.draws, 0);
  const Audit::Recent recent = audit.take_recent();
  EXPECT_EQ(recent.reads, 20);
  EXPECT_DOUBLE_EQ(recent.counted, 20 * 0.5);
  EXPECT_DOUBLE_EQ(recent.audited, 20 * 0.5 + sums.estimated_error.sum);
  EXPECT_EQ(audit.take_recent().reads, 0);
}

TEST(Audit, NothingDrawnIsNothingWrong) {
  Audit audit(1);
  audit.add(0, 0, {});
  const AuditSums sums = audit.sums();
  const Interval i = sums.estimated_error.interval(sums.reads);
  EXPECT_EQ(sums.estimated_error.draws, 0);
  EXPECT_EQ(i.low, 0);
  EXPECT_EQ(i.high, 0);
  EXPECT_EQ(AuditSums().estimated_error.interval(0).mean, 0);
}

}  // namespace
}  // namespace tinyserve
