#pragma once
// Records requests as a trace that replay reads (docs/replay.md), without their text: arrival, lengths, and for each full
// page of tokens a name under a key that is drawn for the recording and written nowhere. Equal pages after equal pages of
// requests with the same salt have the same name; nothing else can be learnt from one.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

namespace tinyserve::replay {

class TraceWriter {
 public:
  /// Throws InputError when `path` exists (a trace cannot be added to: its key is gone) or cannot be made. Only the user
  /// may read the file.
  TraceWriter(const std::filesystem::path& path, int32_t page_size);
  /// Writes what is still to be written.
  ~TraceWriter();
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  /// One request being recorded. May outlive the writer, which then records no more. Members may be called from any
  /// thread, accepted() and the others at the same time.
  class Recording {
   public:
    virtual ~Recording() = default;
    /// The engine has taken the request: it is in the trace from now on. Without this, it is not.
    virtual void accepted() = 0;
    /// Tokens of the (first) answer.
    virtual void add(std::span<const int32_t> tokens) = 0;
    /// No more of them will come.
    virtual void end(bool cancelled) = 0;
  };
  /// Begins to record a request; `max_tokens` 0: the client named none.
  std::shared_ptr<Recording> begin(std::span<const int32_t> prompt, int32_t max_tokens, std::string_view salt);

 private:
  friend struct RequestRecording;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace tinyserve::replay
