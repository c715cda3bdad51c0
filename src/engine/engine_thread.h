#pragma once
#include <cstdint>
#include <memory>

#include "engine/engine.h"

namespace tinyserve {

/// Runs an Engine on a thread of its own. All members may be called from any thread.
class EngineThread {
 public:
  explicit EngineThread(std::unique_ptr<Engine> engine);
  ~EngineThread();  ///< stops at once: unfinished requests end with kAbort

  int32_t max_context() const;
  /// Queues the request and returns its id. Throws InputError or QueueFull, as Engine::add, before anything is queued.
  uint64_t submit(Request request, OutputSink sink);
  /// Asks to end a request; takes effect before the next step.
  void cancel(uint64_t id);
  EngineStats stats() const;
  /// A map of all K/V pages, taken between steps a slice at a time; waits for it, `timeout_s` at most. Null when it did not
  /// come in time or the engine stops. Who asks while one is being taken gets the same.
  std::shared_ptr<const PageMap> page_map(double timeout_s);
  /// Refuses new requests from now on (submit throws QueueFull) and returns when the last one has finished or
  /// `timeout_s` passed; true when nothing is left.
  bool drain(double timeout_s);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tinyserve
