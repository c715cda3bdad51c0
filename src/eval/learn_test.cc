#include "eval/learn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "model/calibration.h"
#include "select/policies.h"

namespace tinyserve::eval {
namespace {

using testing::ElementsAre;

TEST(ShareOut, GivesToThoseWhoGain) {
  // The second gains most from more, the third loses least by less, the first is indifferent.
  EXPECT_THAT(share_out({{1, 1, 1, 1}, {9, 6, 1, 0.9}, {5.1, 5, 4.9, 4.8}}), ElementsAre(0.5f, 2, 0.5f));
  EXPECT_THAT(share_out({{2, 1, 0.9, 0.8}, {2, 1, 0.9, 0.8}}), ElementsAre(1, 1));
  EXPECT_THAT(share_out({{2, 1, 0.1, 0.1}}), ElementsAre(1));
  EXPECT_TRUE(share_out({}).empty());
  // That reading less did better is chance, and so is that reading more did worse: neither buys anything.
  EXPECT_THAT(share_out({{0.5, 1, 2, 3}, {4, 3, 2, 1}}), ElementsAre(0.5f, 1));
}

TEST(OffsetFit, IsTheWeightedMedian) {
  OffsetFit fit;
  EXPECT_EQ(fit.factor(), 1);
  EXPECT_EQ(fit.error(1), 0);
  const auto needs = [](double factor, double mass) {
    return PartMass{.truth = mass, .codes = mass / std::exp(factor * 0.25), .offset = 0.25};
  };
  fit.add(needs(1.5, 0.2)), fit.add(needs(2.0, 0.2)), fit.add(needs(9.0, 0.2));
  EXPECT_NEAR(fit.factor(), 2, 1e-9);
  EXPECT_NEAR(fit.error(2), 0.2 * 0.25 * (0.5 + 7) / 3, 1e-9);
  fit.add(needs(0.5, 0.7));
  EXPECT_NEAR(fit.factor(), 0.5, 1e-9);
  fit.add({.truth = 0, .codes = 1, .offset = 1});  // nothing to estimate
  EXPECT_NEAR(fit.factor(), 0.5, 1e-9);
}

TEST(LogitDivergence, IsKullbackLeibler) {
  const std::vector<float> p{0, std::log(3.0f)}, q{5, 5}, shifted{7, 7 + std::log(3.0f)};
  EXPECT_NEAR(logit_divergence(p, q), 0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-6);
  EXPECT_NEAR(logit_divergence(p, shifted), 0, 1e-6);
}

TEST(Choose, LeavesDenseWhatSparsityHurts) {
  SelectionMaps maps{.layers = {{HeadMap{}}, {}, {HeadMap{}}, {HeadMap{}}}, .reads = std::vector<LayerReads>(4)};
  std::vector<LayerHarm> harm(4);
  harm[0] = {.plain = 1, .half_offsets = 0.8, .offsets = 0.9, .tokens = {1, 0.9, 0.5}, .fine = {1, 1, 1}};
  harm[2] = {.plain = 0.01, .half_offsets = 0.02, .offsets = 0.02, .tokens = {0.02, 0.001, 0.001}, .fine = {0.02, 0.01, 0.01}};
  harm[3] = {.plain = 0.001,
             .half_offsets = 0.001,
             .offsets = 0.0005,
             .tokens = {0.001, 0.001, 0.001},
             .fine = {0.001, 0.001, 0.001}};
  const std::vector<LayerChoice> choices = choose(harm, maps, 0.1);
  EXPECT_TRUE(choices[0].dense);
  EXPECT_FALSE(choices[1].dense);
  EXPECT_EQ(choices[2].strength, 0);
  EXPECT_EQ(choices[3].strength, 1);
  EXPECT_EQ(choices[2].reads, (LayerReads{.exact = 1, .coded = 1, .fine = 0.5}));
  const std::vector<LayerOffsets> offsets{{{1}, {1}}, {}, {{1}, {1}}, {{4}, {2}}};
  maps.layers[3][0].coarse_error = {0.5f}, maps.layers[3][0].fine_error = {0.25f};
  const SelectionMaps all = applied(maps, offsets, choices, true, true),
                      no_reads = applied(maps, offsets, choices, true, false);
  EXPECT_EQ(all.coded_layers(), (std::vector<bool>{false, false, true, true}));
  EXPECT_EQ(no_reads.coded_layers(), maps.coded_layers());
  EXPECT_THAT(all.layers[3][0].coarse_error, ElementsAre(2));
  EXPECT_THAT(no_reads.layers[3][0].fine_error, ElementsAre(0.5f));
}

class LearnTest : public testing::Test {
 protected:
  static constexpr int32_t kContext = 400;
  static std::vector<int32_t> some_tokens(int32_t n) {
    std::vector<int32_t> list;
    for (int32_t i = 0; i < n; ++i) list.push_back((i % 97 * 31 + i / 50) % 4000);
    return list;
  }
  ThreadPool pool{2};
  std::unique_ptr<ops::Ops> ops = ops::make_ops("cpu", pool);
  std::unique_ptr<Model> model = Model::load(TINYSERVE_SOURCE_DIR "/models/tiny-16m-32k", *ops, {});
  SelectionMaps maps = calibrate(*model, *ops, some_tokens(512), 512);
  SequenceRunner runner{*model, *ops, pool, kContext + 16, {.layers = maps.coded_layers(), .values = true}};
  LearnContext context{*model, *ops, runner, {.policy = "tinyserve", .budget = 32, .coded = 32, .from = 0}};
  Task task{.context = some_tokens(kContext), .questions = {{.tokens = some_tokens(4), .answer = {0, 4}}}};
};

TEST_F(LearnTest, FitsAndReports) {
  const std::vector<LayerOffsets> offsets = fit_offsets(context, {&task, 1}, maps);
  ASSERT_EQ(offsets.size(), maps.layers.size());
  for (const LayerOffsets& o : offsets) {
    ASSERT_EQ(o.coarse.size(), 2u);
    for (const double f : o.coarse) EXPECT_TRUE(f >= 0 && f <= 4);
    EXPECT_LE(o.error_after, o.error_before + 1e-12);
  }
  std::vector<PolicyReport> reports = report_policies(context, {&task, 1}, maps, std::vector<int32_t>{32, 400});
  ASSERT_EQ(reports.size() + 1, report_trials(std::vector<int32_t>{32, 400}));
  for (const PolicyReport& r : reports) {
    SCOPED_TRACE(r.policy);
    EXPECT_TRUE(std::isfinite(r.divergence) && r.divergence >= 0);
    EXPECT_GT(r.mass, 0.1);
    EXPECT_LT(r.mass + r.coded_mass, 1 + 1e-3);
    if (r.budget == 400) {
      EXPECT_LT(r.output_error, 0.02);
      EXPECT_NEAR(r.policy == "tinyserve" ? 1 : r.mass, 1, 1e-3);
    }
  }
}

TEST_F(LearnTest, LayersWithoutMapsAreDense) {
  SelectionMaps none = maps;
  for (auto& heads : none.layers) heads.clear();
  std::vector<StepTrial> trials{maps_trial(context, "none", none), maps_trial(context, "all", maps)};
  const auto lasting = trials[1].make();
  run_trials(runner, {&task, 1}, *lasting, trials);
  EXPECT_NEAR(trials[0].divergence, 0, 1e-9);
  EXPECT_EQ(trials[0].bytes_share(), 1);
  EXPECT_GT(trials[1].divergence, 1e-9);
  EXPECT_LT(trials[1].bytes_share(), 0.9);
}

}  // namespace
}  // namespace tinyserve::eval
