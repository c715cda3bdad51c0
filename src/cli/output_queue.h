#pragma once
#include <semaphore.h>

#include <deque>
#include <mutex>
#include <optional>

#include "engine/request.h"

namespace tinyserve::cli {

/// Outputs of one request on their way from the engine's thread to the one that prints them.
class OutputQueue {
 public:
  OutputQueue();
  ~OutputQueue();
  OutputQueue(const OutputQueue&) = delete;
  OutputQueue& operator=(const OutputQueue&) = delete;

  void push(Output&& output);
  /// Waits for the next output. Nothing when woken through semaphore() instead.
  std::optional<Output> pop();
  /// For a signal handler to post.
  sem_t* semaphore() { return &ready_; }

 private:
  std::mutex mutex_;
  std::deque<Output> outputs_;
  sem_t ready_;  ///< one post per output; more when a signal handler posts too
};

}  // namespace tinyserve::cli
