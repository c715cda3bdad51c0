#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <numeric>

namespace tinyserve {
namespace {

TEST(ThreadPool, RunsEveryThreadOnce) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    std::vector<int> calls(threads);
    for (int round = 0; round < 1000; ++round) pool.run([&](int t) { ++calls[t]; });
    EXPECT_EQ(calls, std::vector<int>(threads, 1000));
  }
}

TEST(ThreadPool, ParallelForCoversTheRangeInGrains) {
  ThreadPool pool(3);
  for (int64_t n : {0, 1, 7, 64, 1000}) {
    for (int64_t grain : {1, 16, 64}) {
      std::vector<int> hits(n);
      pool.parallel_for(n, grain, [&](int64_t begin, int64_t end, int) {
        EXPECT_EQ(begin % grain, 0);
        for (int64_t i = begin; i < end; ++i) ++hits[i];
      });
      EXPECT_EQ(std::accumulate(hits.begin(), hits.end(), int64_t{0}), n);
    }
  }
}

// No two calls with one thread index overlap, and every unit is done once, however long the pieces take.
TEST(ThreadPool, ThreadIndexIsExclusive) {
  ThreadPool pool(4);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::atomic<int>> inside(4);
    std::vector<int> hits(50);
    pool.parallel_for(50, 1, [&](int64_t begin, int64_t end, int thread) {
      EXPECT_EQ(inside[thread].fetch_add(1), 0);
      for (int64_t i = begin; i < end; ++i) ++hits[i];
      if (begin % 3 == 0) std::this_thread::yield();
      inside[thread].fetch_sub(1);
    });
    ASSERT_EQ(hits, std::vector<int>(50, 1));
  }
}

// One slow task must not keep the others' work waiting: the caller takes them over.
TEST(ThreadPool, TakesOverWhatASlowThreadHasNotBegun) {
  ThreadPool pool(2);
  std::atomic<int> blocked{-1};
  std::vector<std::atomic<int>> done(8);
  std::atomic<int> total{0};
  pool.parallel_for(8, 1, [&](int64_t begin, int64_t, int thread) {
    int none = -1;
    if (thread == 1 && blocked.compare_exchange_strong(none, static_cast<int>(begin)))
      while (total.load() < 7) std::this_thread::yield();  // until the caller has done everything else
    ++done[begin];
    ++total;
  });
  for (auto& d : done) EXPECT_EQ(d, 1);
}

TEST(ThreadPool, ManyMoreThreadsThanProcessors) {
  ThreadPool pool(24);
  int64_t sum = 0;
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> sums(24);
    pool.parallel_for(1000, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) sums[thread] += i;
    });
    sum += std::accumulate(sums.begin(), sums.end(), int64_t{0});
  }
  EXPECT_EQ(sum, 200 * 999 * 1000 / 2);
}

TEST(ThreadPool, WakesAfterSleeping) {
  ThreadPool pool(2);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    std::atomic<int> calls{0};
    pool.run([&](int) { ++calls; });
    EXPECT_EQ(calls, 2);
  }
}

}  // namespace
}  // namespace tinyserve
