#pragma once
// A generation request while it runs: submits to the engine from a worker thread, hears outputs on the engine's thread,
// answers on the I/O thread, and cancels when the client goes away.

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "server/backend.h"
#include "server/generation.h"
#include "server/http.h"
#include "server/work_queue.h"

namespace tinyserve {

class GenerationRun : public std::enable_shared_from_this<GenerationRun> {
 public:
  /// `tenant`: whose prompts this one may share pages with; see cache_salt.h.
  GenerationRun(Backend& backend, WorkQueue& workers, std::shared_ptr<IoPoster> poster,
                std::shared_ptr<HttpExchange> exchange, std::string tenant);

  /// I/O thread, before start(): from now on a client that goes away ends the run.
  void watch();
  /// The client has gone: there is no point in starting. Any thread.
  bool cancelled() const;
  /// Worker thread. Throws what Backend::submit throws, with nothing left in the engine.
  void start(Generation generation);

 private:
  void hear(size_t prompt_index, Output&& output);    // engine's thread
  void deliver();                                     // I/O thread
  void answer();                                      // I/O thread, all outputs are in
  void gone(Gone reason);                             // I/O thread
  void fail(int status, const std::string& message);  // I/O thread
  void cancel();

  Backend& backend_;
  WorkQueue& workers_;
  const std::shared_ptr<IoPoster> poster_;
  const std::shared_ptr<HttpExchange> exchange_;
  const std::string tenant_;

  mutable std::mutex mutex_;
  // Guarded by mutex_:
  std::vector<uint64_t> ids_;
  std::vector<std::pair<size_t, Output>> inbox_;
  bool cancelled_ = false;
  bool posted_ = false;   // deliver() is on its way
  bool started_ = false;  // every prompt is in the engine; nothing is delivered before

  std::unique_ptr<Generation> generation_;  // set once by start(), then the I/O thread's
  bool finished_ = false;                   // I/O thread: the answer is complete or given up
};

}  // namespace tinyserve
