#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tinyserve {
namespace {

inline void cpu_relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Bridges the serial pieces between two operations of a step.
constexpr auto kSpin = std::chrono::microseconds(100);
// Then whoever else wants the processor has it, but waking up still costs no more than a look: sampling, detokenising.
constexpr auto kYield = std::chrono::microseconds(1000);

template <class Done>
bool spin_until(Done&& done) {
  for (int i = 0; i < 64; ++i) {
    if (done()) return true;
    cpu_relax();
  }
  const auto begin = std::chrono::steady_clock::now();
  for (auto waited = begin - begin; waited < kYield; waited = std::chrono::steady_clock::now() - begin) {
    if (waited > kSpin) std::this_thread::yield();
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      cpu_relax();
    }
  }
  return done();
}

constexpr uint64_t share_state(uint32_t run, uint32_t next, uint32_t end) {
  return uint64_t{run} << 32 | next << 16 | end;
}

// CPU quota of the cgroup (v2), in cores; a large number when there is none.
double cgroup_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (file >> quota >> period && quota != "max" && period > 0) return std::stod(quota) / period;
  return 1e9;
}

}  // namespace

int ThreadPool::default_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return std::max(1u, std::thread::hardware_concurrency());
  std::set<std::pair<int, int>> cores;  // (package, core): hyper-threads of one core count once
  int logical = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    ++logical;
    const std::string base = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    int package = -1, core = -1;
    std::ifstream(base + "physical_package_id") >> package;
    std::ifstream(base + "core_id") >> core;
    if (core >= 0) cores.emplace(package, core);
  }
  int n = cores.empty() ? logical : static_cast<int>(cores.size());
  n = std::min<int>(n, static_cast<int>(std::max(1.0, cgroup_cores())));
  return std::max(1, n);
}

ThreadPool::ThreadPool(int num_threads) : num_threads_(num_threads > 0 ? num_threads : default_threads()) {
  shares_ = std::make_unique<Share[]>(static_cast<size_t>(num_threads_));
  for (int i = 1; i < num_threads_; ++i) workers_.emplace_back([this, i] { worker(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
    run_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::run_erased(Task task, void* argument, int tasks) {
  if (num_threads_ == 1) {
    for (int i = 0; i < tasks; ++i) task(argument, i, 0);
    return;
  }
  const uint32_t run = run_.load(std::memory_order_relaxed) + 1;
  task_.store(task, std::memory_order_relaxed);
  argument_.store(argument, std::memory_order_relaxed);
  unfinished_.store(tasks, std::memory_order_relaxed);
  for (int t = 0; t < num_threads_; ++t) {
    const auto begin = static_cast<uint32_t>(int64_t{tasks} * t / num_threads_);
    const auto end = static_cast<uint32_t>(int64_t{tasks} * (t + 1) / num_threads_);
    shares_[t].state.store(share_state(run, begin, end), std::memory_order_relaxed);
  }
  run_.store(run, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) {
    { std::lock_guard lock(mutex_); }  // a worker between its last look and its wait holds this
    wake_.notify_all();
  }
  work(run, 0);
  // What is left was begun by others.
  while (!spin_until([&] { return unfinished_.load(std::memory_order_acquire) == 0; })) {
    // Off the processor, so that the scheduler can move a thread here whose own processor is taken.
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

// Own tasks first, then those that others have not begun.
void ThreadPool::work(uint32_t run, int thread) {
  const Task task = task_.load(std::memory_order_relaxed);
  void* argument = argument_.load(std::memory_order_relaxed);
  int done = 0;
  for (int i = 0; i < num_threads_; ++i) {
    std::atomic<uint64_t>& share = shares_[(thread + i) % num_threads_].state;
    uint64_t state = share.load(std::memory_order_acquire);
    for (;;) {
      const auto next = static_cast<uint32_t>(state >> 16 & 0xffff), end = static_cast<uint32_t>(state & 0xffff);
      if (state >> 32 != run || next >= end) break;
      // Success means that the run is not over, so `task` and `argument`, read before, are its own.
      if (!share.compare_exchange_weak(state, share_state(run, next + 1, end), std::memory_order_acq_rel)) continue;
      task(argument, static_cast<int>(next), thread);
      ++done;
      state = share.load(std::memory_order_acquire);
    }
  }
  if (done > 0) unfinished_.fetch_sub(done, std::memory_order_release);
}

void ThreadPool::worker(int index) {
  uint32_t seen = 0;
  for (;;) {
    const auto changed = [&] { return run_.load(std::memory_order_acquire) != seen; };
    if (!spin_until(changed)) {
      std::unique_lock lock(mutex_);
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      wake_.wait(lock, [&] { return run_.load(std::memory_order_seq_cst) != seen; });
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
    }
    if (stop_.load()) return;
    seen = run_.load(std::memory_order_acquire);
    work(seen, index);
  }
}

}  // namespace tinyserve
