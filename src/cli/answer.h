#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "engine/request.h"

namespace tinyserve {
class EngineThread;
}

namespace tinyserve::cli {

class InterruptHandler;

/// One finished (or stopped) answer and how long it took.
struct Answer {
  std::string text;
  FinishReason finish = FinishReason::kNone;
  bool interrupted = false;  ///< by Ctrl-C
  int32_t prompt_tokens = 0;
  int32_t cached_prompt_tokens = 0;
  int32_t tokens = 0;
  double first_token_s = 0;  ///< from submitting to the first token
  double total_s = 0;
  SelectionAccount selection;  ///< reads == 0: all of it was dense
};

/// Submits `request` (n must be 1), hands text to `write` as it comes and returns when the answer is complete. Ctrl-C
/// ends it early: the request is cancelled and what was written so far is the answer. Throws what submit() throws.
Answer stream_answer(EngineThread& engine, Request request, InterruptHandler& interrupts,
                     const std::function<void(std::string_view)>& write);

/// "31 prompt tokens (16 cached), first token after 12 ms; 57 tokens at 812.3 tokens/s, stopped by end of text".
std::string describe(const Answer& answer);

/// What an answer that attended by selection read, and what its audit says: "read 1/14.2 of K/V: 91.3% of the attention
/// exactly, 7.9% in codes, 0.8% estimated; audited: 0.9% (0.7% to 1.1%) estimated, off by +0.1% (-0.1% to +0.3%)".
/// Empty when it was dense.
std::string describe_selection(const SelectionAccount& read);

/// `text` with control characters that could steer a terminal (all but newline and tab) shown as \xNN. An answer is
/// outside input to the terminal.
std::string terminal_safe(std::string_view text);

}  // namespace tinyserve::cli
