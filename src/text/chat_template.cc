#include "text/chat_template.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/jinja/template.h"

namespace tinyserve {
namespace {

constexpr const char* kName = "chat template";

// The content of one message as text, or as it is when the template takes lists.
void normalise_content(OrderedJson& content, size_t index, bool takes_lists) {
  if (content.is_string() || content.is_null()) return;
  if (!content.is_array())
    throw InputError(fmt::format("messages[{}].content must be a string, null or a list of parts", index));
  std::string joined;
  for (size_t i = 0; i < content.size(); ++i) {
    const OrderedJson& part = content[i];
    const auto type = part.is_object() ? part.find("type") : part.end();
    const auto text = part.is_object() ? part.find("text") : part.end();
    if (!part.is_object() || type == part.end() || !type->is_string())
      throw InputError(fmt::format("messages[{}].content[{}] must be an object with a type", index, i));
    if (*type != "text")
      throw InputError(fmt::format("messages[{}].content[{}] has the type '{}'; only text is supported", index, i,
                                   type->get_ref<const std::string&>()));
    if (text == part.end() || !text->is_string())
      throw InputError(fmt::format("messages[{}].content[{}].text must be a string", index, i));
    if (i) joined += '\n';
    joined += text->get_ref<const std::string&>();
  }
  if (!takes_lists) content = std::move(joined);
}

// Arguments travel as a JSON text in the API; templates expect the object.
void parse_arguments(OrderedJson& message, size_t index) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || calls->is_null()) return;
  if (!calls->is_array()) throw InputError(fmt::format("messages[{}].tool_calls must be a list", index));
  for (size_t i = 0; i < calls->size(); ++i) {
    OrderedJson& call = (*calls)[i];
    if (!call.is_object()) throw InputError(fmt::format("messages[{}].tool_calls[{}] must be an object", index, i));
    const auto function = call.find("function");
    if (function == call.end() || !function->is_object()) continue;
    const auto arguments = function->find("arguments");
    if (arguments == function->end() || !arguments->is_string()) continue;
    const std::string text = arguments->get<std::string>();
    const std::string what = fmt::format("messages[{}].tool_calls[{}].function.arguments", index, i);
    *arguments = text.empty() ? OrderedJson::object() : parse_ordered_json(text, what);
  }
}

}  // namespace

struct ChatTemplate::Impl {
  std::string source, bos_token, eos_token;
  jinja::Template parsed;
  bool takes_lists = false;

  OrderedJson variables(OrderedJson messages, const OrderedJson* tools, bool add_generation_prompt,
                        const OrderedJson* extra) const {
    OrderedJson v;
    v["messages"] = std::move(messages);
    // An empty list means no tools, as in the API; templates test "tools is not none".
    v["tools"] = tools && !tools->is_null() && !tools->empty() ? *tools : OrderedJson();
    v["documents"] = nullptr;
    v["add_generation_prompt"] = add_generation_prompt;
    if (!bos_token.empty()) v["bos_token"] = bos_token;
    if (!eos_token.empty()) v["eos_token"] = eos_token;
    if (extra && !extra->is_null()) {
      if (!extra->is_object()) throw InputError("chat_template_kwargs must be an object");
      for (const auto& [key, value] : extra->items()) {
        if (key == "messages" || key == "tools" || key == "add_generation_prompt")
          throw InputError(fmt::format("chat_template_kwargs may not set '{}'; it is a field of the request", key));
        v[key] = value;
      }
    }
    return v;
  }

  // A template that does not know lists prints them, fails on them, or drops them.
  bool probe_lists() const {
    static constexpr const char* kProbe = "a text that tells whether parts are read";
    OrderedJson part = {{"type", "text"}, {"text", kProbe}};
    OrderedJson message = {{"role", "user"}, {"content", OrderedJson::array({std::move(part)})}};
    const OrderedJson messages = OrderedJson::array({std::move(message)});
    try {
      jinja::Limits limits;
      limits.max_steps = 200'000;
      const std::string out = parsed.render(variables(messages, nullptr, true, nullptr), limits);
      return out.find(kProbe) != out.npos && out.find("'type'") == out.npos && out.find("\"type\"") == out.npos;
    } catch (const InputError&) {
      return false;
    }
  }
};

ChatTemplate::ChatTemplate() = default;
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

ChatTemplate::ChatTemplate(std::string source, std::string bos_token, std::string eos_token) {
  jinja::Template parsed(source, kName);
  auto impl =
      std::make_unique<Impl>(Impl{std::move(source), std::move(bos_token), std::move(eos_token), std::move(parsed)});
  impl->takes_lists = impl->probe_lists();
  impl_ = std::move(impl);
}

ChatTemplate ChatTemplate::from_file(const std::string& path, std::string bos_token, std::string eos_token) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(fmt::format("cannot read the chat template {}", path));
  std::string source(jinja::kMaxTemplateBytes + 1, '\0');
  file.read(source.data(), static_cast<std::streamsize>(source.size()));
  if (file.bad()) throw InputError(fmt::format("cannot read the chat template {}", path));
  source.resize(static_cast<size_t>(file.gcount()));
  try {
    return ChatTemplate(std::move(source), std::move(bos_token), std::move(eos_token));
  } catch (const InputError& e) {
    throw InputError(fmt::format("{}: {}", path, e.what()));
  }
}

bool ChatTemplate::has_template() const { return impl_ != nullptr; }

const std::string& ChatTemplate::source() const {
  static const std::string kNone;
  return impl_ ? impl_->source : kNone;
}

bool ChatTemplate::takes_content_lists() const { return impl_ && impl_->takes_lists; }

std::string ChatTemplate::render(const OrderedJson& messages, const OrderedJson* tools, bool add_generation_prompt,
                                 const OrderedJson* extra_kwargs) const {
  if (!impl_)
    throw InputError(
        "the model has no chat template, so it cannot answer chats; start the server with "
        "--chat-template FILE, or use /v1/completions");
  if (!messages.is_array()) throw InputError("messages must be a list");
  OrderedJson normalised = messages;
  for (size_t i = 0; i < normalised.size(); ++i) {
    OrderedJson& message = normalised[i];
    if (!message.is_object()) throw InputError(fmt::format("messages[{}] must be an object", i));
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string())
      throw InputError(fmt::format("messages[{}].role must be a string", i));
    if (const auto content = message.find("content"); content != message.end())
      normalise_content(*content, i, impl_->takes_lists);
    parse_arguments(message, i);
  }
  if (tools && !tools->is_null() && !tools->is_array()) throw InputError("tools must be a list");
  return impl_->parsed.render(impl_->variables(std::move(normalised), tools, add_generation_prompt, extra_kwargs));
}

}  // namespace tinyserve
