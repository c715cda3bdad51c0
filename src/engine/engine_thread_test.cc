#include "engine/engine_thread.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "engine/engine_test_util.h"

namespace tinyserve {
namespace {

using testing::EngineTest;

/// Waits for requests from other threads.
class Inbox {
 public:
  OutputSink sink() {
    return [this](Output&& o) {
      std::lock_guard lock(mutex_);
      tokens_ += o.token_ids.size();
      aborts_ += o.finish == FinishReason::kAbort;
      done_ += o.request_done;
      changed_.notify_all();
    };
  }
  bool wait_done(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return done_ >= count; });
  }
  bool wait_tokens(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return tokens_ >= count; });
  }
  size_t tokens() const { return locked(tokens_); }
  size_t aborts() const { return locked(aborts_); }
  size_t done() const { return locked(done_); }

 private:
  size_t locked(const size_t& value) const {
    std::lock_guard lock(mutex_);
    return value;
  }
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  size_t tokens_ = 0, aborts_ = 0, done_ = 0;
};

class EngineThreadTest : public EngineTest {
 protected:
  EngineThread& launch() {
    start();
    thread = std::make_unique<EngineThread>(std::move(engine));
    return *thread;
  }
  Inbox inbox;
  std::unique_ptr<EngineThread> thread;
};

TEST_F(EngineThreadTest, ServesManyThreads) {
  EngineThread& t = launch();
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < 25; ++i) {
        const uint64_t id = t.submit(greedy(prompt(5 + i, c), 8), inbox.sink());
        if (i % 5 == 0) t.cancel(id);
        (void)t.stats();
      }
    });
  }
  for (auto& client : clients) client.join();
  EXPECT_TRUE(inbox.wait_done(100));
  EXPECT_TRUE(t.drain(60));
  EXPECT_EQ(t.stats().pages_used, 0);
  EXPECT_EQ(t.stats().running, 0);
}

TEST_F(EngineThreadTest, GivesTheSameAnswers) {
  EngineThread& t = launch();
  testing::Collected a, b;
  std::atomic<int> done = 0;
  auto counted = [&](OutputSink sink) {
    return [&, sink](Output&& o) {
      const bool last = o.request_done;
      sink(std::move(o));
      if (last) ++done;
    };
  };
  t.submit(greedy(prompt(20), 30), counted(a.sink()));
  t.submit(greedy(prompt(25), 30), counted(b.sink()));
  EXPECT_TRUE(t.drain(60));
  EXPECT_EQ(done, 2);
  EXPECT_EQ(a.choices[0].tokens, answer(prompt(20), 30));
  EXPECT_EQ(b.choices[0].tokens, answer(prompt(25), 30));
}

TEST_F(EngineThreadTest, RefusesBeforeAnythingIsQueued) {
  EngineThread& t = launch();
  EXPECT_EQ(t.max_context(), 256);
  EXPECT_THROW(t.submit(greedy({}, 8), inbox.sink()), InputError);
  EXPECT_THROW(t.submit(greedy(prompt(250), 8), inbox.sink()), InputError);
  EXPECT_EQ(t.stats().steps, 0u);
}

/// Blocks the engine in its step until told otherwise.
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = false, reached = false;
  void pass() {
    std::unique_lock lock(mutex);
    reached = true;
    changed.notify_all();
    changed.wait(lock, [&] { return open; });
  }
  void wait_reached() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return reached; });
  }
  void let_go() {
    std::lock_guard lock(mutex);
    open = true;
    changed.notify_all();
  }
};

TEST_F(EngineThreadTest, TheQueueLimitHoldsAcrossTheMailbox) {
  config.max_queued = 5;
  Gate gate;
  model.on_forward = [&](const Step&) { gate.pass(); };
  EngineThread& t = launch();
  t.submit(greedy(prompt(5), 8), inbox.sink());
  gate.wait_reached();
  // Nothing is taken from the mailbox while the step runs, so it fills up.
  int accepted = 0;
  for (int i = 0; i < 10; ++i) {
    try {
      t.submit(greedy(prompt(5), 8), inbox.sink());
      ++accepted;
    } catch (const QueueFull&) {
    }
  }
  EXPECT_GE(accepted, 4);
  EXPECT_LE(accepted, 5);
  (void)t.stats();  // does not wait for the step
  gate.let_go();
  EXPECT_TRUE(t.drain(60));
  EXPECT_EQ(inbox.done(), size_t(accepted) + 1);
}

TEST_F(EngineThreadTest, CancelFreesPagesWithinAStep) {
  std::atomic<int> steps_after = 0;
  std::atomic<bool> cancelled = false;
  model.on_forward = [&](const Step&) { steps_after += cancelled; };
  EngineThread& t = launch();
  const uint64_t id = t.submit(greedy(prompt(5), 240), inbox.sink());
  ASSERT_TRUE(inbox.wait_tokens(3));
  t.cancel(id);
  cancelled = true;
  ASSERT_TRUE(inbox.wait_done(1));
  EXPECT_LE(steps_after, 1);
  EXPECT_EQ(inbox.aborts() + (inbox.tokens() == 240), 1u);
  EXPECT_TRUE(t.drain(60));
  EXPECT_EQ(t.stats().pages_used, 0);
}

TEST_F(EngineThreadTest, DrainRefusesNewAndWaitsForOld) {
  Gate gate;
  model.on_forward = [&](const Step&) { gate.pass(); };
  EngineThread& t = launch();
  t.submit(greedy(prompt(5), 20), inbox.sink());
  gate.wait_reached();
  EXPECT_FALSE(t.drain(0.01));
  EXPECT_THROW(t.submit(greedy(prompt(5), 8), inbox.sink()), QueueFull);
  gate.let_go();
  EXPECT_TRUE(t.drain(60));
  EXPECT_EQ(inbox.done(), 1u);
  EXPECT_EQ(inbox.aborts(), 0u);
  EXPECT_TRUE(t.drain(0));
}

TEST_F(EngineThreadTest, DestructionEndsEverything) {
  Gate gate;
  model.on_forward = [&](const Step&) { gate.pass(); };
  EngineThread& t = launch();
  for (int i = 0; i < 20; ++i) t.submit(greedy(prompt(5, i), 200), inbox.sink());
  gate.wait_reached();
  for (int i = 0; i < 5; ++i) t.submit(greedy(prompt(5, i), 200), inbox.sink());  // still in the mailbox
  std::thread opener([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    gate.let_go();
  });
  thread.reset();
  opener.join();
  EXPECT_EQ(inbox.done(), 25u);
  EXPECT_EQ(inbox.aborts(), 25u);
}

TEST_F(EngineThreadTest, AnIdleEngineSleeps) {
  EngineThread& t = launch();
  t.submit(greedy(prompt(5), 3), inbox.sink());
  ASSERT_TRUE(inbox.wait_done(1));
  auto cpu_seconds = [] {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + 1e-6 * (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  };
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(cpu_seconds() - before, 0.1);
}

}  // namespace
}  // namespace tinyserve
