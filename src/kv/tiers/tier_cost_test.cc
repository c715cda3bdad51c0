#include "kv/tiers/tier_cost.h"

#include <gtest/gtest.h>

namespace tinyserve {
namespace {

TEST(TierCost, SaysYesUntilBothSidesAreMeasured) {
  TierCost cost;
  EXPECT_TRUE(cost.worth(Tier::kHost, 1, 1));
  cost.moved(Tier::kHost, 10, 100);
  EXPECT_TRUE(cost.worth(Tier::kHost, 1, 1));
  EXPECT_EQ(cost.compute_s(5), 0);
  cost.computed(100, 0.1);
  EXPECT_TRUE(cost.measured());
  EXPECT_FALSE(cost.worth(Tier::kHost, 1, 1));
  EXPECT_TRUE(cost.worth(Tier::kDisk, 1, 1));
}

TEST(TierCost, ComparesWhatMovingAndComputingTake) {
  TierCost cost;
  cost.computed(1000, 1.0);          // 1 ms a token
  cost.moved(Tier::kDisk, 10, 0.1);  // 10 ms a page
  EXPECT_DOUBLE_EQ(cost.compute_s(16), 0.016);
  EXPECT_DOUBLE_EQ(cost.move_s(Tier::kDisk, 3), 0.03);
  EXPECT_TRUE(cost.worth(Tier::kDisk, 1, 16));
  EXPECT_TRUE(cost.worth(Tier::kDisk, 1, 10)) << "no dearer is good enough";
  EXPECT_FALSE(cost.worth(Tier::kDisk, 1, 9));
  EXPECT_FALSE(cost.worth(Tier::kDisk, 100, 999));
}

TEST(TierCost, FollowsWhatChanges) {
  TierCost cost;
  cost.computed(1000, 1.0);
  for (int i = 0; i < 5; ++i) cost.moved(Tier::kHost, 10, 0.01);
  EXPECT_TRUE(cost.worth(Tier::kHost, 1, 2));
  for (int i = 0; i < 60; ++i) cost.moved(Tier::kHost, 10, 1.0);  // the bus is busy now
  EXPECT_NEAR(cost.move_s(Tier::kHost, 1), 0.1, 0.001);
  EXPECT_FALSE(cost.worth(Tier::kHost, 1, 2));
  for (int i = 0; i < 60; ++i) cost.moved(Tier::kHost, 10, 0.01);
  EXPECT_TRUE(cost.worth(Tier::kHost, 1, 2));
}

TEST(TierCost, AsksAgainNowAndThen) {
  TierCost cost;
  cost.computed(1000, 0.001);
  cost.moved(Tier::kDisk, 1, 10);
  int yes = 0;
  for (int i = 0; i < 320; ++i) yes += cost.worth(Tier::kDisk, 1, 16);
  EXPECT_EQ(yes, 10);
  EXPECT_TRUE(cost.worth(Tier::kHost, 1, 16)) << "tiers are asked apart";
}

TEST(TierCost, BigMeasurementsWeighMore) {
  TierCost cost;
  cost.moved(Tier::kHost, 1, 1);
  cost.moved(Tier::kHost, 1000, 1);
  EXPECT_LT(cost.move_s(Tier::kHost, 1), 0.0021);
  cost.moved(Tier::kHost, 0, 100);  // nothing moved says nothing
  cost.moved(Tier::kHost, 5, -1);   // nor does a clock that went back
  EXPECT_LT(cost.move_s(Tier::kHost, 1), 0.0021);
}

}  // namespace
}  // namespace tinyserve
