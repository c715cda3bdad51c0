#pragma once
// The shapes of answers. Strings that go out are valid UTF-8.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "engine/request.h"
#include "server/api_error.h"
#include "server/backend.h"
#include "server/config.h"

namespace tinyserve {

/// {"error": {...}}
std::string error_body(const ApiError& error);
/// `text` as a JSON string with its quotes; broken UTF-8 is replaced.
std::string json_string(std::string_view text);
/// /v1/models, and one entry of it.
std::string models_body(const ServerConfig& config, int32_t max_context, int64_t created_s);
std::string model_body(const std::string& name, int32_t max_context, int64_t created_s);

/// How a token is shown in logprobs: its text, "bytes:\xe2\x80" when its bytes are no whole characters (OpenAI's way),
/// or "token_id:123".
std::string token_label(int32_t token, const TextFront& text, bool as_id);

/// Completions' logprobs of consecutive tokens. `offset` counts characters of the answer before them and is moved on.
/// `without_first`: a prompt's first token, which nothing predicts, stands before them (echo); -1: none.
Json completion_logprobs(const std::vector<TokenLogprob>& tokens, int32_t without_first, const TextFront& text,
                         bool as_id, int64_t& offset);
/// Chat's logprobs entries ("content").
Json chat_logprobs(const std::vector<TokenLogprob>& tokens, int32_t num_top, const TextFront& text, bool as_id);
/// "prompt_logprobs": null for the first token, then {"id": {"logprob", "decoded_token"}} per token, as vLLM's.
Json prompt_logprobs_json(const std::vector<TokenLogprob>& tokens, int32_t num_top, const TextFront& text);

/// With a "tinyserve" object when answers attended by selection: what they read of what dense attention reads, and by
/// which means their attention's mass came; in it "audit" when they were audited (docs/selection.md).
Json usage_json(int64_t prompt_tokens, int64_t completion_tokens, int64_t cached_tokens, const SelectionAccount& selection);

/// "stop", "length"; null while the choice is running.
const char* finish_name(FinishReason reason);

/// dump() for text that may hold anything.
std::string dump(const Json& json);

}  // namespace tinyserve
