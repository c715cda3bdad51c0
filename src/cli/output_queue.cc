#include "cli/output_queue.h"

#include <cerrno>
#include <utility>

namespace tinyserve::cli {

OutputQueue::OutputQueue() { sem_init(&ready_, 0, 0); }
OutputQueue::~OutputQueue() { sem_destroy(&ready_); }

void OutputQueue::push(Output&& output) {
  {
    std::lock_guard lock(mutex_);
    outputs_.push_back(std::move(output));
  }
  sem_post(&ready_);
}

std::optional<Output> OutputQueue::pop() {
  if (sem_wait(&ready_) != 0 && errno == EINTR) return std::nullopt;
  std::lock_guard lock(mutex_);
  if (outputs_.empty()) return std::nullopt;
  std::optional<Output> output(std::move(outputs_.front()));
  outputs_.pop_front();
  return output;
}

}  // namespace tinyserve::cli
