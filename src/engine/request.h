#pragma once
// What goes into the engine and what comes out. Plain data, no behaviour; the server and the CLI build these.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "select/selector.h"

namespace tinyserve {

/// How tokens are picked. Ranges are checked by validate() (sampling_params.h) before anything is allocated.
struct SamplingParams {
  int32_t n = 1;                      ///< choices per prompt; they share the prompt's pages
  std::optional<int32_t> max_tokens;  ///< none: up to the context limit; 0: score the prompt only
  int32_t min_tokens = 0;             ///< stops and EOS are ignored before that many
  float temperature = 1.0f;           ///< 0: greedy
  int32_t top_k = 0;                  ///< 0: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  float presence_penalty = 0.0f;    ///< on tokens generated so far
  float frequency_penalty = 0.0f;   ///< on tokens generated so far, per occurrence
  float repetition_penalty = 1.0f;  ///< on prompt and generated tokens
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::optional<uint64_t> seed;   ///< choice i draws from stream (seed, i)
  std::vector<std::string> stop;  ///< may straddle tokens
  std::vector<int32_t> stop_token_ids;
  bool include_stop_in_output = false;
  bool ignore_eos = false;
  bool skip_special_tokens = true;  ///< in the text
  int32_t logprobs = -1;            ///< -1: none; k >= 0: the picked token's and the k best
  int32_t prompt_logprobs = -1;     ///< the same for every prompt token but the first
};

struct Request {
  std::vector<int32_t> prompt;  ///< token ids, at least one
  SamplingParams sampling;
  /// Pages are shared between requests of the same salt only: what is in the cache cannot be probed without knowing it.
  std::string cache_salt = {};
  /// How the answer attends to a long context, where it is not to be as the engine's configuration says.
  SelectionRequest selection = {};
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  ///< best first
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kAbort };

/// What one step (or the end of a hold-back) added to one choice of one request.
struct Output {
  uint64_t request_id = 0;
  int32_t index = 0;                   ///< which of the n choices
  std::vector<int32_t> token_ids;      ///< new tokens; the text may lag behind them (characters, stop strings)
  std::string text;                    ///< valid UTF-8
  std::vector<TokenLogprob> logprobs;  ///< one per new token when asked for
  FinishReason finish = FinishReason::kNone;
  std::variant<std::monostate, std::string, int32_t> stop_reason;  ///< stop string or stop token that ended it
  std::string error;  ///< with kAbort: why, when the trouble was ours and not a cancel
  /// On a request's first output only:
  bool first = false;
  int32_t prompt_tokens = 0;
  int32_t cached_prompt_tokens = 0;           ///< found in the prefix cache
  std::vector<TokenLogprob> prompt_logprobs;  ///< [prompt_tokens - 1] when asked for
  /// Set on the output that ends the whole request (all choices done).
  bool request_done = false;
  /// With it: what the request's answers read beyond the length from which they attend by selection; reads == 0: nothing.
  SelectionAccount selection = {};
};

/// Called on the engine's thread, in order; must neither block nor call back into the engine.
using OutputSink = std::function<void(Output&&)>;

}  // namespace tinyserve
