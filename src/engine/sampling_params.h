#pragma once
#include <cstdint>
#include <string_view>

#include "engine/request.h"

namespace tinyserve {

constexpr int32_t kMaxChoices = 128;
constexpr int32_t kMaxLogprobs = 20;
constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxStopBytes = 1024;  ///< of one stop string
constexpr size_t kMaxStopTokens = 1024;
constexpr float kMaxLogitBias = 100;

/// Checks every number of a request before anything is allocated for it. Throws InputError that names the field, its
/// range and the value. `prompt_len` tokens and max_tokens together must fit max_context.
void validate(const SamplingParams& params, int32_t vocab_size, int32_t max_context, int64_t prompt_len);

/// The same for a whole request, prompt ids included.
void validate(const Request& request, int32_t vocab_size, int32_t max_context);

}  // namespace tinyserve
