#include "server/recording_backend.h"

#include <utility>

namespace tinyserve {

uint64_t RecordingBackend::submit(Request request, OutputSink sink) {
  const auto recording = writer_.begin(request.prompt, request.sampling.max_tokens.value_or(0), request.cache_salt);
  const uint64_t id = ModelBackend::submit(std::move(request), [recording, sink = std::move(sink)](Output&& output) {
    if (output.index == 0) {
      recording->add(output.token_ids);
      if (output.finish != FinishReason::kNone) recording->end(output.finish == FinishReason::kAbort);
    }
    sink(std::move(output));
  });
  recording->accepted();
  return id;
}

}  // namespace tinyserve
