// /v1/chat/completions: messages into a prompt.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "server/api_error.h"
#include "server/request_parts.h"
#include "server/selection_field.h"

namespace tinyserve {
namespace {

constexpr size_t kMaxMessages = 16384;
constexpr size_t kMaxTools = 1024;

std::string_view trim(std::string_view text) {
  const char* spaces = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(spaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(spaces) + 1 - begin);
}

// The parts' texts as templates that take texts are given them: on lines of their own.
std::string join_parts(const OrderedJson& content) {
  if (content.is_string()) return content.get<std::string>();
  std::string text;
  for (const OrderedJson& part : content) {
    if (&part != &content.front()) text += '\n';
    text += part.at("text").get_ref<const std::string&>();
  }
  return text;
}

void check_parts(const OrderedJson& parts, const std::string& param) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string path = fmt::format("{}[{}]", param, i);
    const Fields part(parts[i], path + ".");
    const auto type = part.string("type");
    if (!type) throw bad_field(path + ".type", fmt::format("\"{}.type\" is missing.", path));
    if (*type != "text")
      throw ApiError(
          400, fmt::format("\"{}\" is of type {}; only \"text\" parts are supported.", path, brief(*part.find("type"))),
          path, "unsupported_parameter");
    const OrderedJson* value = part.find("text");
    if (!value || !value->is_string())
      throw bad_field(path + ".text", fmt::format("\"{}.text\" must be a string.", path));
  }
}

void check_tool_calls(const OrderedJson& calls, const std::string& param) {
  if (!calls.is_array()) throw bad_field(param, fmt::format("\"{}\" must be a list, got {}.", param, brief(calls)));
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string path = fmt::format("{}[{}]", param, i);
    const OrderedJson* function = Fields(calls[i], path + ".").find("function");
    if (!function) throw bad_field(path + ".function", fmt::format("\"{}.function\" is missing.", path));
    if (!Fields(*function, path + ".function.").string("name"))
      throw bad_field(path + ".function.name", fmt::format("\"{}.function.name\" is missing.", path));
  }
}

const OrderedJson& read_messages(const Fields& fields) {
  const OrderedJson* list = fields.find("messages");
  if (!list) throw bad_field("messages", "\"messages\" is missing: send a list of {\"role\", \"content\"}.");
  if (!list->is_array())
    throw bad_field("messages",
                    fmt::format("\"messages\" must be a list of {{\"role\", \"content\"}}, got {}.", brief(*list)));
  if (list->empty()) throw bad_field("messages", "\"messages\" is empty: at least one message is needed.");
  if (list->size() > kMaxMessages)
    throw bad_field("messages",
                    fmt::format("\"messages\" has {} messages; at most {} are taken.", list->size(), kMaxMessages));
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string path = fmt::format("messages[{}]", i);
    const Fields message((*list)[i], path + ".");
    const auto role = message.string("role", 64);
    if (!role || role->empty()) throw bad_field(path + ".role", fmt::format("\"{}.role\" is missing.", path));
    if (const OrderedJson* calls = message.find("tool_calls")) check_tool_calls(*calls, path + ".tool_calls");
    const OrderedJson* content = message.find("content");
    if (content && content->is_array()) {
      check_parts(*content, path + ".content");
    } else if (!(content ? content->is_string() : *role == "assistant")) {  // an assistant's turn may only call tools
      throw bad_field(path + ".content", fmt::format("\"{}.content\" must be a string or a list of text parts, got {}.",
                                                     path, content ? brief(*content) : "nothing"));
    }
  }
  return *list;
}

// The tools the template is to show; null when there are none or the request says to leave them alone.
const OrderedJson* read_tools(const Fields& fields) {
  const OrderedJson* tools = fields.find("tools");
  if (tools) {
    if (!tools->is_array() || tools->size() > kMaxTools)
      throw bad_field("tools",
                      fmt::format("\"tools\" must be a list of at most {}, got {}.", kMaxTools, brief(*tools)));
    for (size_t i = 0; i < tools->size(); ++i) {
      const std::string path = fmt::format("tools[{}]", i);
      const Fields tool((*tools)[i], path + ".");
      if (tool.string("type").value_or("") != "function")
        throw bad_field(path + ".type", fmt::format("\"{}.type\" must be \"function\".", path));
      const OrderedJson* function = tool.find("function");
      if (!function) throw bad_field(path + ".function", fmt::format("\"{}.function\" is missing.", path));
      if (!Fields(*function, path + ".function.").string("name"))
        throw bad_field(path + ".function.name", fmt::format("\"{}.function.name\" is missing.", path));
    }
    if (tools->empty()) tools = nullptr;
  }
  const OrderedJson* choice = fields.find("tool_choice");
  if (!choice || *choice == "auto") return tools;
  if (*choice == "none") return nullptr;  // what the model is not shown it does not call
  throw ApiError(400,
                 fmt::format("\"tool_choice\" must be \"none\" or \"auto\", got {}: a call cannot be forced, as output "
                             "is not constrained.",
                             brief(*choice)),
                 "tool_choice", "unsupported_parameter");
}

// Cuts a rendered prompt after the last message's content, so that the model goes on writing that message.
std::string cut_after_content(std::string prompt, const OrderedJson& messages) {
  const auto found = messages.back().find("content");
  const std::string content = found == messages.back().end() || found->is_null() ? "" : join_parts(*found);
  const std::string_view core = trim(content);
  const size_t at = core.empty() ? std::string::npos : prompt.rfind(core);
  if (at == std::string::npos)
    throw bad_field("continue_final_message",
                    "\"continue_final_message\": the last message is empty, or the chat template "
                    "does not show it as it is, so it cannot be continued.");
  const std::string_view tail = std::string_view(content).substr(content.find(core));  // with its trailing spaces
  prompt.resize(at + (prompt.compare(at, tail.size(), tail) == 0 ? tail.size() : core.size()));
  return prompt;
}

}  // namespace

std::string render_messages(const Fields& fields, const ApiContext& context) {
  const OrderedJson& messages = read_messages(fields);
  const OrderedJson* tools = read_tools(fields);
  const OrderedJson* extra = fields.find("chat_template_kwargs");
  if (extra) {
    Fields check(*extra, "chat_template_kwargs.");
    if (extra->contains("chat_template"))
      throw ApiError(
          400, "\"chat_template_kwargs.chat_template\" is not supported. Templates come from the model folder only.",
          "chat_template_kwargs.chat_template", "unsupported_parameter");
    for (const char* name : {"messages", "tools", "add_generation_prompt"})
      if (extra->contains(name))
        throw bad_field(fmt::format("chat_template_kwargs.{}", name),
                        fmt::format("\"chat_template_kwargs\" may not hold \"{0}\"; "
                                    "send \"{0}\" itself.",
                                    name));
  }
  const bool go_on = fields.boolean("continue_final_message").value_or(false);
  const auto generation_prompt = fields.boolean("add_generation_prompt");
  if (go_on && generation_prompt.value_or(false))
    throw bad_field("continue_final_message",
                    "\"continue_final_message\" and \"add_generation_prompt\" exclude each other.");
  std::string prompt;
  try {
    prompt = context.text.render_chat(messages, tools, generation_prompt.value_or(!go_on), extra);
  } catch (const InputError& e) {
    throw bad_field("messages", e.what());
  }
  return go_on ? cut_after_content(std::move(prompt), messages) : prompt;
}

GenerationPlan plan_chat(const OrderedJson& body, const ApiContext& context) {
  const Fields fields(body);
  GenerationPlan plan;
  plan.chat = true;
  plan.model = read_model(body, context.config);
  refuse_unsupported(fields, true);
  plan.sampling = read_sampling(fields, context, true);
  plan.selection = read_selection(fields, context.config.selection);
  plan.cache_salt = read_cache_salt(fields);
  read_stream(fields, plan);
  plan.token_ids_as_text = fields.boolean("return_tokens_as_token_ids").value_or(false);
  const bool logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, context.config.max_logprobs);
  if (top.value_or(0) > 0 && !logprobs)
    throw bad_field("top_logprobs", "\"top_logprobs\" needs \"logprobs\" to be true.");
  if (logprobs) plan.logprobs = static_cast<int32_t>(top.value_or(0));
  plan.prompt_logprobs =
      static_cast<int32_t>(fields.integer("prompt_logprobs", 0, context.config.max_logprobs).value_or(-1));
  if (plan.stream && plan.prompt_logprobs >= 0)
    throw bad_field("prompt_logprobs", "\"prompt_logprobs\" cannot be streamed; set \"stream\" to false.");
  plan.sampling.logprobs = plan.logprobs;
  plan.sampling.prompt_logprobs = plan.prompt_logprobs;
  const std::string prompt = render_messages(fields, context);
  plan.prompts.push_back(
      {encode_checked(prompt, fields.boolean("add_special_tokens").value_or(false), "messages", context), {}});
  check_length(plan.prompts[0].ids.size(), plan.sampling, "messages", context);
  return plan;
}

}  // namespace tinyserve
