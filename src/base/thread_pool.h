#pragma once
// Our own pool: a loop of small operations must not pay a scheduler's slice per barrier. A worker spins briefly for the
// next piece of work and only then sleeps; waking a sleeping thread can cost milliseconds on a shared virtual machine.
// Nobody waits for a thread that has not begun: work is cut into tasks that belong to a thread, but a thread that is
// done takes what others have not begun, so a worker without a processor delays the rest by one task at most.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace tinyserve {

class ThreadPool {
 public:
  /// `num_threads` counts the caller: the pool starts num_threads - 1 workers. 0 means default_threads().
  explicit ThreadPool(int num_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }
  /// Physical cores this process may use (affinity and cgroup quota respected).
  static int default_threads();

  /// Calls fn(i) once for each i < num_threads() and returns when all are done. Usually thread i does (0 is the
  /// caller), but any thread may, one after the other, so the calls must not wait for each other. Not reentrant; one
  /// caller at a time.
  template <class Fn>
  void run(Fn&& fn) {
    run_tasks(num_threads_, [&](int task, int) { fn(task); });
  }

  /// Calls fn(begin, end, thread_index) for ranges that make up [0, n), cut at multiples of `grain`. Thread t begins
  /// with the t-th contiguous part and sees it in rising order, in a few pieces; at the end threads take over others'
  /// pieces. thread_index is the thread that runs: no two calls with the same one overlap. Runs inline when there is
  /// one unit.
  template <class Fn>
  void parallel_for(int64_t n, int64_t grain, Fn&& fn) {
    const int64_t units = (n + grain - 1) / grain;
    if (units <= 1 || num_threads_ == 1) {
      if (n > 0) fn(int64_t{0}, n, 0);
      return;
    }
    const int tasks = static_cast<int>(units < num_threads_ * kPieces ? units : num_threads_ * kPieces);
    run_tasks(tasks, [&](int task, int thread) {
      const int64_t begin = units * task / tasks * grain, end = units * (task + 1) / tasks * grain;
      fn(begin, end < n ? end : n, thread);
    });
  }

 private:
  static constexpr int kPieces = 4;  // of one thread's part; each costs some 50 ns
  using Task = void (*)(void* function, int task, int thread);

  // What one thread has left: the number of the run, then the next task and the end of its range, 16 bits each.
  // Claiming checks all three at once, so a thread that comes late cannot take a task of a run it has not seen.
  struct alignas(64) Share {
    std::atomic<uint64_t> state{0};
  };

  template <class Fn>
  void run_tasks(int tasks, Fn&& fn) {
    using F = std::remove_reference_t<Fn>;
    run_erased([](void* f, int task, int thread) { (*static_cast<F*>(f))(task, thread); },
               const_cast<std::remove_const_t<F>*>(&fn), tasks);
  }
  void run_erased(Task task, void* argument, int tasks);
  void work(uint32_t run, int thread);
  void worker(int index);

  int num_threads_;
  std::vector<std::thread> workers_;
  std::unique_ptr<Share[]> shares_;           // [num_threads]
  alignas(64) std::atomic<uint32_t> run_{0};  // number of the current run; a worker waits for it to change
  std::atomic<Task> task_{nullptr};
  std::atomic<void*> argument_{nullptr};
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<int> unfinished_{0};  // tasks of the current run
  alignas(64) std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace tinyserve
