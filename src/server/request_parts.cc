#include "server/request_parts.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "engine/sampling_params.h"
#include "server/api_error.h"

namespace tinyserve {
namespace {

constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxBiases = 1024;
constexpr size_t kMaxSaltBytes = 1024;
constexpr int32_t kDefaultCompletionTokens = 16;  // OpenAI's

void read_stop(const Fields& fields, SamplingParams& sampling) {
  const OrderedJson* stop = fields.find("stop");
  if (!stop) return;
  auto take = [&](const OrderedJson& value, const std::string& path) {
    if (!value.is_string()) throw bad_field(path, fmt::format("\"{}\" must be a string, got {}.", path, brief(value)));
    const auto& text = value.get_ref<const std::string&>();
    if (text.empty()) throw bad_field(path, fmt::format("\"{}\" must not be empty.", path));
    if (text.size() > kMaxStopBytes)
      throw bad_field(path,
                      fmt::format("\"{}\" has {} bytes; at most {} are taken.", path, text.size(), kMaxStopBytes));
    sampling.stop.push_back(text);
  };
  if (stop->is_string()) return take(*stop, "stop");
  if (!stop->is_array())
    throw bad_field("stop", fmt::format("\"stop\" must be a string or a list of strings, got {}.", brief(*stop)));
  if (stop->size() > kMaxStopStrings)
    throw bad_field("stop",
                    fmt::format("\"stop\" has {} entries; at most {} are taken.", stop->size(), kMaxStopStrings));
  for (size_t i = 0; i < stop->size(); ++i) take((*stop)[i], fmt::format("stop[{}]", i));
}

void read_logit_bias(const Fields& fields, const ApiContext& context, SamplingParams& sampling) {
  const OrderedJson* bias = fields.find("logit_bias");
  if (!bias) return;
  if (!bias->is_object())
    throw bad_field("logit_bias",
                    fmt::format("\"logit_bias\" must be an object of token id to number, got {}.", brief(*bias)));
  if (bias->size() > kMaxBiases)
    throw bad_field("logit_bias",
                    fmt::format("\"logit_bias\" has {} entries; at most {} are taken.", bias->size(), kMaxBiases));
  for (const auto& [key, value] : bias->items()) {
    const bool digits = !key.empty() && key.size() <= 9 && key.find_first_not_of("0123456789") == std::string::npos;
    const int32_t id = digits ? std::stoi(key) : -1;
    if (id < 0 || id >= context.text.vocab_size())
      throw bad_field("logit_bias", fmt::format("\"logit_bias\" has the key {}, which is not a token id from 0 to {}.",
                                                brief(OrderedJson(key)), context.text.vocab_size() - 1));
    sampling.logit_bias.emplace_back(
        id, static_cast<float>(checked_number(value, "logit_bias." + key, -kMaxLogitBias, kMaxLogitBias)));
  }
}

struct Unsupported {
  const char* name;
  const char* harmless;  // JSON of the value that changes nothing; null always is
  const char* advice;
};

// What other OpenAI-compatible servers take and this one does not. Silence would be a wrong answer.
constexpr Unsupported kUnsupported[] = {
    {"use_beam_search", "false", "Beam search is not supported."},
    {"length_penalty", "1.0", "It belongs to beam search, which is not supported."},
    {"early_stopping", "false", "It belongs to beam search, which is not supported."},
    {"guided_json", "null", "Constrained decoding is not supported."},
    {"guided_regex", "null", "Constrained decoding is not supported."},
    {"guided_choice", "null", "Constrained decoding is not supported."},
    {"guided_grammar", "null", "Constrained decoding is not supported."},
    {"structured_outputs", "null", "Constrained decoding is not supported."},
    {"grammar", "null", "Constrained decoding is not supported."},
    {"allowed_token_ids", "null", "Use \"logit_bias\"."},
    {"bad_words", "[]", "Use \"logit_bias\"."},
    {"logits_processors", "null", "Requests cannot bring code."},
    {"prompt_embeds", "null", "Send text or token ids."},
    {"truncate_prompt_tokens", "null", "Cut the prompt before sending it."},
    {"return_token_ids", "false", "Use \"logprobs\" with \"return_tokens_as_token_ids\"."},
    {"spaces_between_special_tokens", "true", "Text is decoded as the model's tokenizer does."},
    {"kv_transfer_params", "null", "It is not supported."},
    {"priority", "0", "Requests are served in order of arrival."},
};
constexpr Unsupported kUnsupportedCompletion[] = {
    {"suffix", "null", "Text cannot be inserted before a suffix."},
    {"chat_template", "null", "Templates come from the model folder only."},
    {"messages", "null", "Send conversations to /v1/chat/completions."},
};
constexpr Unsupported kUnsupportedChat[] = {
    {"chat_template", "null", "Templates come from the model folder only."},
    {"prompt", "null", "Send prompts to /v1/completions."},
    {"echo", "false", "Use /v1/completions."},
    {"suffix", "null", "Text cannot be inserted before a suffix."},
    {"best_of", "1", "Use \"n\"."},
    {"functions", "null", "Use \"tools\"."},
    {"function_call", "null", "Use \"tools\"."},
    {"parallel_tool_calls", "true", "Tool calls are not parsed; the model's text comes back as it is."},
    {"documents", "null", "Put them into the messages."},
    {"audio", "null", "Only text is supported."},
    {"modalities", "[\"text\"]", "Only text is supported."},
    {"web_search_options", "null", "It is not supported."},
    {"prediction", "null", "It is not supported."},
    {"store", "false", "Nothing is stored."},
    {"mm_processor_kwargs", "null", "Only text is supported."},
};

void refuse(const Fields& fields, std::span<const Unsupported> list) {
  for (const Unsupported& u : list)
    if (const OrderedJson* value = fields.find(u.name); value && *value != OrderedJson::parse(u.harmless))
      throw ApiError(400, fmt::format("\"{}\" is not supported. {}", u.name, u.advice), u.name,
                     "unsupported_parameter");
}

}  // namespace

SamplingParams read_sampling(const Fields& fields, const ApiContext& context, bool chat) {
  const DefaultSampling& defaults = context.config.default_sampling;
  SamplingParams s;
  auto number = [&](const char* name, std::optional<float> fallback, float last, double min, double max,
                    bool above = false) {
    const auto value = fields.number(name, min, max, above);
    return value ? static_cast<float>(*value) : fallback.value_or(last);
  };
  s.n = static_cast<int32_t>(
      fields.integer("n", 1, std::min({context.config.max_n, context.config.max_choices, kMaxChoices})).value_or(1));
  if (chat) {
    const auto old_name = fields.integer("max_tokens", 1, kMaxCount);
    const auto new_name = fields.integer("max_completion_tokens", 1, kMaxCount);
    if (new_name || old_name) s.max_tokens = static_cast<int32_t>(new_name ? *new_name : *old_name);
  } else {
    s.max_tokens = static_cast<int32_t>(fields.integer("max_tokens", 0, kMaxCount).value_or(kDefaultCompletionTokens));
  }
  s.min_tokens = static_cast<int32_t>(fields.integer("min_tokens", 0, kMaxCount).value_or(0));
  if (s.max_tokens && s.min_tokens > *s.max_tokens)
    throw bad_field("min_tokens",
                    fmt::format("\"min_tokens\" is {}, more than \"max_tokens\" ({}).", s.min_tokens, *s.max_tokens));
  s.temperature = number("temperature", defaults.temperature, 1.0f, 0, 100);
  s.top_p = number("top_p", defaults.top_p, 1.0f, 0, 1, true);
  s.min_p = number("min_p", defaults.min_p, 0.0f, 0, 1);
  // -1 is how vLLM writes "all".
  const int64_t top_k = fields.integer("top_k", -1, kMaxCount).value_or(defaults.top_k.value_or(0));
  s.top_k = static_cast<int32_t>(std::max<int64_t>(top_k, 0));
  s.presence_penalty = number("presence_penalty", std::nullopt, 0.0f, -2, 2);
  s.frequency_penalty = number("frequency_penalty", std::nullopt, 0.0f, -2, 2);
  s.repetition_penalty = number("repetition_penalty", defaults.repetition_penalty, 1.0f, 0.01, 100);
  if (const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX)) s.seed = static_cast<uint64_t>(*seed);
  read_stop(fields, s);
  read_logit_bias(fields, context, s);
  if (const OrderedJson* ids = fields.find("stop_token_ids"))
    s.stop_token_ids = read_token_ids(*ids, "stop_token_ids", context, kMaxStopTokens);
  s.include_stop_in_output = fields.boolean("include_stop_str_in_output").value_or(false);
  s.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  s.skip_special_tokens = fields.boolean("skip_special_tokens").value_or(true);
  return s;
}

std::string read_cache_salt(const Fields& fields) {
  const auto salt = fields.string("cache_salt", kMaxSaltBytes);
  // Empty would mean that the prompt is shared, the opposite of what who sends a salt wants.
  if (salt && salt->empty()) throw bad_field("cache_salt", "\"cache_salt\" must not be empty; leave it out to share.");
  return salt.value_or("");
}

void read_stream(const Fields& fields, GenerationPlan& plan) {
  plan.stream = fields.boolean("stream").value_or(false);
  const OrderedJson* options = fields.find("stream_options");
  if (!options) return;
  if (!plan.stream) throw bad_field("stream_options", "\"stream_options\" needs \"stream\" to be true.");
  const Fields inner(*options, "stream_options.");
  plan.include_usage = inner.boolean("include_usage").value_or(false);
  if (inner.boolean("continuous_usage_stats").value_or(false))
    throw ApiError(400, "\"stream_options.continuous_usage_stats\" is not supported. Use \"include_usage\".",
                   "stream_options.continuous_usage_stats", "unsupported_parameter");
}

void refuse_unsupported(const Fields& fields, bool chat) {
  refuse(fields, kUnsupported);
  if (chat) {
    refuse(fields, kUnsupportedChat);
  } else {
    refuse(fields, kUnsupportedCompletion);
  }
  if (const OrderedJson* format = fields.find("response_format")) {
    const Fields inner(*format, "response_format.");
    if (inner.string("type").value_or("text") != "text")
      throw ApiError(400,
                     "\"response_format\" other than {\"type\": \"text\"} is not supported: output is not constrained.",
                     "response_format", "unsupported_parameter");
  }
}

std::vector<int32_t> encode_checked(std::string_view text, bool add_special, const std::string& param,
                                    const ApiContext& context) {
  // A lower bound on the tokens without tokenising. Normalisation may shorten a text (compatibility forms are up to
  // four times as long as what they become), hence the factor.
  const size_t least = text.size() / 4 / static_cast<size_t>(std::max(1, context.text.longest_token_bytes()));
  if (least > static_cast<size_t>(context.max_context))
    throw ApiError(400,
                   fmt::format("\"{}\" has {} bytes, far more than the model's {} tokens of context can hold.", param,
                               text.size(), context.max_context),
                   param, "context_length_exceeded");
  return context.text.encode(text, add_special);
}

std::vector<int32_t> read_token_ids(const OrderedJson& list, const std::string& param, const ApiContext& context,
                                    size_t max_count) {
  if (!list.is_array())
    throw bad_field(param, fmt::format("\"{}\" must be a list of token ids, got {}.", param, brief(list)));
  if (list.size() > max_count)
    throw ApiError(400, fmt::format("\"{}\" has {} token ids; at most {} are taken.", param, list.size(), max_count),
                   param, "context_length_exceeded");
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  const int64_t last = context.text.vocab_size() - 1;
  for (size_t i = 0; i < list.size(); ++i) {
    const OrderedJson& value = list[i];
    if (value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(last))
      ids.push_back(value.get<int32_t>());
    else
      ids.push_back(static_cast<int32_t>(checked_integer(value, fmt::format("{}[{}]", param, i), 0, last)));
  }
  return ids;
}

void check_length(size_t prompt_tokens, const SamplingParams& sampling, const std::string& param,
                  const ApiContext& context) {
  if (prompt_tokens == 0) throw bad_field(param, fmt::format("\"{}\" is empty: at least one token is needed.", param));
  const int64_t answer = sampling.max_tokens.value_or(1);
  const int64_t total = static_cast<int64_t>(prompt_tokens) + answer;
  if (total > context.max_context)
    throw ApiError(
        400,
        fmt::format("The model's context is {} tokens, but {} were asked for: {} of prompt and {} of answer. "
                    "Shorten \"{}\" or lower \"max_tokens\".",
                    context.max_context, total, prompt_tokens, answer, param),
        param, "context_length_exceeded");
}

}  // namespace tinyserve
