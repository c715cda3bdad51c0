#pragma once
// A few threads that parse, template and tokenise, so that a large prompt does not stall the I/O thread.

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tinyserve {

class WorkQueue {
 public:
  WorkQueue(int num_threads, size_t max_waiting);
  ~WorkQueue();  ///< finishes the jobs begun, drops the others
  /// False when `max_waiting` jobs wait already. Jobs must not throw.
  bool push(std::function<void()> job);
  /// The same, past the limit: for the second half of a request that was let in.
  void push_always(std::function<void()> job);

 private:
  void work();

  const size_t max_waiting_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace tinyserve
