#include "cli/bandwidth_probe.h"

#include <gtest/gtest.h>

#include "base/thread_pool.h"

namespace tinyserve::cli {
namespace {

TEST(BandwidthProbe, GivesAPlausibleFigure) {
  ThreadPool pool(2);
  BandwidthProbe probe(pool, size_t{64} << 20);
  const double bandwidth = probe.measure(2);
  EXPECT_EQ(probe.best(), bandwidth);
  EXPECT_GT(bandwidth, 1e8);   // slower than any machine, sanitizers included
  EXPECT_LT(bandwidth, 1e13);  // faster than any: the reads were left out
}

}  // namespace
}  // namespace tinyserve::cli
