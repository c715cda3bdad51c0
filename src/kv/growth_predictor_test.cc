#include "kv/growth_predictor.h"

#include <gtest/gtest.h>

#include <random>

namespace tinyserve {
namespace {

TEST(GrowthPredictor, KnowsNothingAtFirstButTheLimitAndItsPast) {
  GrowthPredictor predictor;
  EXPECT_EQ(predictor.expected(0, 1000), 64);
  EXPECT_EQ(predictor.expected(0, 10), 10);
  EXPECT_EQ(predictor.expected(600, 10000), 300);
  EXPECT_EQ(predictor.expected(10, 10), 0);
}

TEST(GrowthPredictor, LearnsWhereAnswersEnd) {
  GrowthPredictor predictor;
  std::mt19937 random(1);
  for (int i = 0; i < 1000; ++i) predictor.ended(100 + static_cast<int32_t>(random() % 100));
  // Three of four end before 175; classes are an eighth of a doubling wide.
  EXPECT_NEAR(predictor.expected(0, 100000), 175, 16);
  EXPECT_NEAR(predictor.expected(120, 100000), 180 - 120, 18) << "of those at least as long";
  EXPECT_EQ(predictor.expected(120, 130), 10) << "never more than may come";
  EXPECT_EQ(predictor.expected(1000, 100000), 500) << "longer than all before";
}

TEST(GrowthPredictor, FollowsAChangeOfLoad) {
  GrowthPredictor predictor;
  for (int i = 0; i < 20000; ++i) predictor.ended(1000);
  for (int i = 0; i < 3000; ++i) predictor.ended(20);
  EXPECT_LT(predictor.expected(0, 100000), 32);
  for (int i = 0; i < 200000; ++i) predictor.ended(1000);  // the weights are scaled back meanwhile
  EXPECT_NEAR(predictor.expected(0, 100000), 1000, 64);
}

}  // namespace
}  // namespace tinyserve
