#pragma once
// What --record-trace puts between the server and the engine.

#include "replay/trace_writer.h"
#include "server/model_backend.h"

namespace tinyserve {

/// Writes each request that the engine takes to a trace, without its text.
class RecordingBackend final : public ModelBackend {
 public:
  /// Make the writer before the engine, so that it hears of the requests that end with the engine.
  RecordingBackend(EngineThread& engine, replay::TraceWriter& writer) : ModelBackend(engine), writer_(writer) {}
  uint64_t submit(Request request, OutputSink sink) override;

 private:
  replay::TraceWriter& writer_;
};

}  // namespace tinyserve
