#include "cli/output_queue.h"

#include <gtest/gtest.h>

#include <csignal>

#include <thread>

#include "cli/interrupt.h"

namespace tinyserve::cli {
namespace {

TEST(OutputQueue, KeepsOrderAcrossThreads) {
  OutputQueue queue;
  std::thread producer([&] {
    for (int i = 0; i < 1000; ++i) {
      Output o;
      o.index = i;
      queue.push(std::move(o));
    }
  });
  for (int i = 0; i < 1000; ++i) {
    std::optional<Output> o = queue.pop();
    ASSERT_TRUE(o);
    EXPECT_EQ(o->index, i);
  }
  producer.join();
}

TEST(OutputQueue, InterruptWakesTheReader) {
  InterruptHandler interrupts;
  OutputQueue queue;
  interrupts.set_wake(queue.semaphore());
  EXPECT_FALSE(interrupts.take());
  std::raise(SIGINT);
  EXPECT_FALSE(queue.pop());  // woken, though nothing was pushed
  EXPECT_TRUE(interrupts.take());
  EXPECT_FALSE(interrupts.take());
}

TEST(Interrupts, BlockedInThreadsStartedMeanwhile) {
  sigset_t set;
  bool blocked = false;
  {
    BlockInterrupts block;
    std::thread([&] {
      pthread_sigmask(SIG_SETMASK, nullptr, &set);
      blocked = sigismember(&set, SIGINT) == 1;
    }).join();
  }
  EXPECT_TRUE(blocked);
  pthread_sigmask(SIG_SETMASK, nullptr, &set);
  EXPECT_EQ(sigismember(&set, SIGINT), 0);
}

}  // namespace
}  // namespace tinyserve::cli
