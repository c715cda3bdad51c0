#include "engine/sampling_params.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"

namespace tinyserve {
namespace {

template <class T>
void check_range(std::string_view field, T value, T low, T high) {
  if (!(value >= low && value <= high))  // NaN fails, too
    throw InputError(fmt::format("{} must be between {} and {}, got {}", field, low, high, value));
}

void check_token(std::string_view field, int64_t id, int32_t vocab_size) {
  if (id < 0 || id >= vocab_size)
    throw InputError(fmt::format("{}: token id {} is out of range, the vocabulary has {} tokens (0 to {})", field, id,
                                 vocab_size, vocab_size - 1));
}

void check_lengths(const SamplingParams& p, int32_t max_context, int64_t prompt_len) {
  if (prompt_len <= 0) throw InputError("prompt must have at least one token");
  if (p.max_tokens && *p.max_tokens < 0)
    throw InputError(fmt::format("max_tokens must not be negative, got {}", *p.max_tokens));
  const int64_t answer = p.max_tokens ? *p.max_tokens : 1;  // without a limit there must be room for one token
  if (prompt_len + answer > max_context)
    throw InputError(fmt::format(
        "this model's maximum context length is {} tokens, however you requested {} tokens ({} in the prompt, {} "
        "for the completion); shorten the prompt or lower max_tokens",
        max_context, prompt_len + answer, prompt_len, answer));
  if (p.min_tokens < 0) throw InputError(fmt::format("min_tokens must not be negative, got {}", p.min_tokens));
  const int64_t most = p.max_tokens ? *p.max_tokens : max_context - prompt_len;
  if (p.min_tokens > most)
    throw InputError(fmt::format("min_tokens ({}) must not be more than max_tokens ({})", p.min_tokens, most));
}

}  // namespace

void validate(const SamplingParams& p, int32_t vocab_size, int32_t max_context, int64_t prompt_len) {
  check_range("n", p.n, 1, kMaxChoices);
  check_lengths(p, max_context, prompt_len);
  if (!(p.temperature >= 0) || !std::isfinite(p.temperature))
    throw InputError(fmt::format("temperature must be a finite number >= 0, got {}", p.temperature));
  if (p.top_k < -1) throw InputError(fmt::format("top_k must be -1 or 0 (all) or a positive count, got {}", p.top_k));
  if (!(p.top_p > 0 && p.top_p <= 1)) throw InputError(fmt::format("top_p must be in (0, 1], got {}", p.top_p));
  check_range("min_p", p.min_p, 0.0f, 1.0f);
  check_range("presence_penalty", p.presence_penalty, -2.0f, 2.0f);
  check_range("frequency_penalty", p.frequency_penalty, -2.0f, 2.0f);
  if (!(p.repetition_penalty > 0 && p.repetition_penalty <= 100))
    throw InputError(fmt::format("repetition_penalty must be in (0, 100], got {}", p.repetition_penalty));
  if (p.logit_bias.size() > static_cast<size_t>(vocab_size))
    throw InputError(fmt::format("logit_bias has {} entries, more than the vocabulary", p.logit_bias.size()));
  for (const auto& [id, bias] : p.logit_bias) {
    check_token("logit_bias", id, vocab_size);
    check_range("logit_bias", bias, -kMaxLogitBias, kMaxLogitBias);
  }
  if (p.stop.size() > kMaxStopStrings)
    throw InputError(fmt::format("stop has {} strings, at most {} are allowed", p.stop.size(), kMaxStopStrings));
  for (const std::string& stop : p.stop) {
    if (stop.empty()) throw InputError("stop must not contain an empty string");
    if (stop.size() > kMaxStopBytes)
      throw InputError(
          fmt::format("stop has a string of {} bytes, at most {} are allowed", stop.size(), kMaxStopBytes));
  }
  if (p.stop_token_ids.size() > kMaxStopTokens)
    throw InputError(
        fmt::format("stop_token_ids has {} entries, at most {} are allowed", p.stop_token_ids.size(), kMaxStopTokens));
  for (int32_t id : p.stop_token_ids) check_token("stop_token_ids", id, vocab_size);
  check_range("logprobs", p.logprobs, -1, kMaxLogprobs);
  check_range("prompt_logprobs", p.prompt_logprobs, -1, kMaxLogprobs);
}

void validate(const Request& request, int32_t vocab_size, int32_t max_context) {
  validate(request.sampling, vocab_size, max_context, static_cast<int64_t>(request.prompt.size()));
  for (int32_t id : request.prompt) check_token("prompt", id, vocab_size);
}

}  // namespace tinyserve
