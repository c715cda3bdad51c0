// /v1/completions, /tokenize and /detokenize.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/api_error.h"
#include "server/request_parts.h"
#include "server/selection_field.h"

namespace tinyserve {
namespace {

PromptInput text_prompt(const std::string& text, bool add_special, bool echo, const std::string& param,
                        const ApiContext& context) {
  return {encode_checked(text, add_special, param, context), echo ? text : std::string()};
}

PromptInput id_prompt(const OrderedJson& list, bool echo, const std::string& param, const ApiContext& context) {
  PromptInput prompt{read_token_ids(list, param, context, static_cast<size_t>(context.max_context)), {}};
  if (echo) prompt.text = context.text.decode(prompt.ids, false);
  return prompt;
}

// A text, a list of token ids, or a list of either.
std::vector<PromptInput> read_prompts(const Fields& fields, bool echo, const SamplingParams& sampling,
                                      const ApiContext& context) {
  const OrderedJson* prompt = fields.find("prompt");
  if (!prompt) throw bad_field("prompt", "\"prompt\" is missing: send a text, a list of texts, or token ids.");
  const bool add_special = fields.boolean("add_special_tokens").value_or(true);
  std::vector<PromptInput> prompts;
  if (prompt->is_string()) {
    prompts.push_back(text_prompt(prompt->get_ref<const std::string&>(), add_special, echo, "prompt", context));
  } else if (prompt->is_array() && !prompt->empty() && prompt->front().is_number()) {
    prompts.push_back(id_prompt(*prompt, echo, "prompt", context));
  } else if (prompt->is_array() && !prompt->empty()) {
    const auto most =
        static_cast<size_t>(std::min(context.config.max_prompts, context.config.max_choices / sampling.n));
    if (prompt->size() > most)
      throw bad_field("prompt",
                      fmt::format("\"prompt\" has {} prompts; with \"n\" = {} at most {} are taken in a request.",
                                  prompt->size(), sampling.n, most));
    for (size_t i = 0; i < prompt->size(); ++i) {
      const OrderedJson& one = (*prompt)[i];
      const std::string param = fmt::format("prompt[{}]", i);
      if (one.is_string())
        prompts.push_back(text_prompt(one.get_ref<const std::string&>(), add_special, echo, param, context));
      else if (one.is_array())
        prompts.push_back(id_prompt(one, echo, param, context));
      else
        throw bad_field(param, fmt::format("\"{}\" must be a text or a list of token ids, got {}.", param, brief(one)));
      check_length(prompts.back().ids.size(), sampling, param, context);
    }
  } else if (prompt->is_array()) {
    throw bad_field("prompt", "\"prompt\" is empty: at least one token is needed.");
  } else {
    throw bad_field("prompt",
                    fmt::format("\"prompt\" must be a text, a list of texts, or token ids, got {}.", brief(*prompt)));
  }
  if (prompts.size() == 1) check_length(prompts[0].ids.size(), sampling, "prompt", context);
  return prompts;
}

}  // namespace

std::string read_model(const OrderedJson& body, const ServerConfig& config) {
  const auto name = Fields(body).string("model");
  if (!name) return config.model_names.front();
  if (std::find(config.model_names.begin(), config.model_names.end(), *name) == config.model_names.end())
    throw ApiError(404,
                   fmt::format("The model {} is not served here; {} is.", brief(OrderedJson(*name)),
                               fmt::join(config.model_names, ", ")),
                   "model", "model_not_found");
  return *name;
}

GenerationPlan plan_completion(const OrderedJson& body, const ApiContext& context) {
  const Fields fields(body);
  GenerationPlan plan;
  plan.model = read_model(body, context.config);
  refuse_unsupported(fields, false);
  plan.sampling = read_sampling(fields, context, false);
  plan.selection = read_selection(fields, context.config.selection);
  plan.cache_salt = read_cache_salt(fields);
  read_stream(fields, plan);
  plan.echo = fields.boolean("echo").value_or(false);
  plan.token_ids_as_text = fields.boolean("return_tokens_as_token_ids").value_or(false);
  if (const auto best_of = fields.integer("best_of", 1, context.config.max_n); best_of && *best_of != plan.sampling.n)
    throw ApiError(400,
                   fmt::format("\"best_of\" is {} and \"n\" is {}: choosing among more candidates than are returned "
                               "is not supported.",
                               *best_of, plan.sampling.n),
                   "best_of", "unsupported_parameter");
  plan.logprobs = static_cast<int32_t>(fields.integer("logprobs", 0, context.config.max_logprobs).value_or(-1));
  plan.prompt_logprobs =
      static_cast<int32_t>(fields.integer("prompt_logprobs", 0, context.config.max_logprobs).value_or(-1));
  if (plan.stream && plan.prompt_logprobs >= 0)
    throw bad_field("prompt_logprobs", "\"prompt_logprobs\" cannot be streamed; set \"stream\" to false.");
  plan.sampling.logprobs = plan.logprobs;
  plan.sampling.prompt_logprobs = std::max(plan.prompt_logprobs, plan.echo ? plan.logprobs : -1);
  plan.prompts = read_prompts(fields, plan.echo, plan.sampling, context);
  return plan;
}

std::string answer_tokenize(const OrderedJson& body, const ApiContext& context) {
  const Fields fields(body);
  read_model(body, context.config);
  std::vector<int32_t> ids;
  if (fields.find("messages")) {
    if (fields.find("prompt")) throw bad_field("prompt", "Send either \"prompt\" or \"messages\".");
    if (fields.find("chat_template"))
      throw ApiError(400, "\"chat_template\" is not supported. Templates come from the model folder only.",
                     "chat_template", "unsupported_parameter");
    ids = encode_checked(render_messages(fields, context), fields.boolean("add_special_tokens").value_or(false),
                         "messages", context);
  } else {
    const auto prompt = fields.string("prompt", context.config.max_body_bytes);
    if (!prompt) throw bad_field("prompt", "\"prompt\" is missing: send a text, or \"messages\".");
    ids = encode_checked(*prompt, fields.boolean("add_special_tokens").value_or(true), "prompt", context);
  }
  Json answer = {
      {"count", ids.size()}, {"max_model_len", context.max_context}, {"tokens", ids}, {"token_strs", nullptr}};
  if (fields.boolean("return_token_strs").value_or(false)) {
    Json& texts = answer["token_strs"] = Json::array();
    for (const int32_t& id : ids) texts.push_back(context.text.decode({&id, 1}, false));
  }
  return answer.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string answer_detokenize(const OrderedJson& body, const ApiContext& context) {
  const Fields fields(body);
  read_model(body, context.config);
  const OrderedJson* tokens = fields.find("tokens");
  if (!tokens) throw bad_field("tokens", "\"tokens\" is missing: send a list of token ids.");
  const auto ids = read_token_ids(*tokens, "tokens", context, context.config.max_json_values);
  return Json{{"prompt", context.text.decode(ids, false)}}.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace tinyserve
