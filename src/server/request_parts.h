#pragma once
// Pieces of request parsing that several endpoints share.

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/json_fields.h"
#include "server/request_parsing.h"

namespace tinyserve {

/// All sampling fields but the logprobs ones, which completions and chat spell differently.
/// `default_max_tokens`: when the request names none; absent: up to the context limit.
SamplingParams read_sampling(const Fields& fields, const ApiContext& context, bool chat);
/// "cache_salt": a text that is not empty, or absent.
std::string read_cache_salt(const Fields& fields);
/// "stream" and "stream_options".
void read_stream(const Fields& fields, GenerationPlan& plan);
/// Refuses fields that other servers know and this one does not, unless they hold the value that changes nothing.
void refuse_unsupported(const Fields& fields, bool chat);
/// A prompt's text as tokens. Texts that cannot fit the context are refused before they are tokenised.
std::vector<int32_t> encode_checked(std::string_view text, bool add_special, const std::string& param,
                                    const ApiContext& context);
/// A list of token ids, each within the vocabulary. `max_count` bounds the list.
std::vector<int32_t> read_token_ids(const OrderedJson& list, const std::string& param, const ApiContext& context,
                                    size_t max_count);
/// Refuses a prompt that is empty or leaves no room for max_tokens.
void check_length(size_t prompt_tokens, const SamplingParams& sampling, const std::string& param,
                  const ApiContext& context);
/// The conversation's prompt as text: messages, tools, tool_choice, chat_template_kwargs, add_generation_prompt,
/// continue_final_message.
std::string render_messages(const Fields& fields, const ApiContext& context);

}  // namespace tinyserve
