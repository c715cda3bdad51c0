#pragma once
// One generation request on its way back: engine outputs in, SSE events or one JSON answer out. No sockets, no threads.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/request_parsing.h"

namespace tinyserve {

class Generation {
 public:
  /// `text` outlives this. `id` and `created_s` go into the answer.
  Generation(GenerationPlan plan, const TextFront& text, std::string id, int64_t created_s);

  const GenerationPlan& plan() const { return plan_; }
  /// Takes what the engine said about prompt `prompt_index`. When streaming, events are appended to `events`.
  void take(size_t prompt_index, Output&& output, std::string& events);
  /// Every prompt has ended.
  bool done() const { return open_prompts_ == 0; }
  /// The engine gave up on a prompt (it was cancelled from below): there is no complete answer.
  bool aborted() const { return aborted_; }
  /// Then: what the engine said about it; empty when it was only cancelled.
  const std::string& abort_reason() const { return abort_reason_; }
  /// After done(): the usage event when asked for, and the end mark.
  std::string stream_end() const;
  /// After done(), when not streaming: the answer. May take long with logprobs of a long prompt.
  std::string body() const;

 private:
  struct Choice {
    std::string text;
    std::vector<TokenLogprob> logprobs;
    FinishReason finish = FinishReason::kNone;
    std::string stop_reason = "null";  // JSON
    bool started = false;              // its first event is out
    int64_t text_offset = 0;           // characters before the next token's logprobs
  };

  std::string event(size_t choice, std::string_view text, const std::string& logprobs, bool role) const;
  std::string usage() const;

  GenerationPlan plan_;
  const TextFront& text_;
  std::string head_;                                        // what every object of the answer begins with
  std::vector<Choice> choices_;                             // [prompts * n]
  std::vector<std::vector<TokenLogprob>> prompt_logprobs_;  // [prompts]
  size_t open_prompts_;
  bool aborted_ = false;
  std::string abort_reason_;
  int64_t prompt_tokens_ = 0;
  int64_t completion_tokens_ = 0;
  int64_t cached_tokens_ = 0;
  SelectionAccount selection_;
};

}  // namespace tinyserve
