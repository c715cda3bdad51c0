#include "server/generation.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "server/response_json.h"

namespace tinyserve {
namespace {

std::string stop_reason_json(const Output& output) {
  if (const auto* text = std::get_if<std::string>(&output.stop_reason)) return json_string(*text);
  if (const auto* token = std::get_if<int32_t>(&output.stop_reason)) return std::to_string(*token);
  return "null";
}

std::string finish_json(FinishReason reason) {
  const char* name = finish_name(reason);
  return name ? fmt::format("\"{}\"", name) : "null";
}

}  // namespace

Generation::Generation(GenerationPlan plan, const TextFront& text, std::string id, int64_t created_s)
    : plan_(std::move(plan)), text_(text), open_prompts_(plan_.prompts.size()) {
  const char* kind = !plan_.chat ? "text_completion" : plan_.stream ? "chat.completion.chunk" : "chat.completion";
  head_ = fmt::format(R"({{"id":{},"object":"{}","created":{},"model":{})", json_string(id), kind, created_s,
                      json_string(plan_.model));
  choices_.resize(plan_.prompts.size() * static_cast<size_t>(plan_.sampling.n));
  prompt_logprobs_.resize(plan_.prompts.size());
  for (const PromptInput& prompt : plan_.prompts) prompt_tokens_ += static_cast<int64_t>(prompt.ids.size());
}

void Generation::take(size_t prompt_index, Output&& output, std::string& events) {
  TS_CHECK(prompt_index < plan_.prompts.size() && output.index >= 0 && output.index < plan_.sampling.n,
           "an output of a choice nobody asked for");
  const size_t index = prompt_index * static_cast<size_t>(plan_.sampling.n) + static_cast<size_t>(output.index);
  Choice& choice = choices_[index];
  if (output.first) {
    cached_tokens_ += output.cached_prompt_tokens;
    prompt_logprobs_[prompt_index] = std::move(output.prompt_logprobs);
  }
  if (output.request_done && open_prompts_ > 0) --open_prompts_;
  if (output.request_done) selection_.add(output.selection);
  if (output.finish == FinishReason::kAbort) {
    aborted_ = true;
    if (abort_reason_.empty()) abort_reason_ = std::move(output.error);
    return;
  }
  completion_tokens_ += static_cast<int64_t>(output.token_ids.size());
  if (output.finish != FinishReason::kNone) {
    choice.finish = output.finish;
    choice.stop_reason = stop_reason_json(output);
  }
  if (!plan_.stream) {
    choice.text += output.text;
    if (plan_.logprobs >= 0)
      std::move(output.logprobs.begin(), output.logprobs.end(), std::back_inserter(choice.logprobs));
    return;
  }

  const bool first = !choice.started;
  const bool with_logprobs = plan_.logprobs >= 0 && !output.logprobs.empty();
  const bool echo = first && plan_.echo;
  // Held-back text (half a character, the beginning of a stop string) makes no event of its own.
  if (output.text.empty() && !with_logprobs && output.finish == FinishReason::kNone && !first) return;
  choice.started = true;
  std::string logprobs = "null";
  if (plan_.chat && with_logprobs) {
    logprobs = dump({{"content", chat_logprobs(output.logprobs, plan_.logprobs, text_, plan_.token_ids_as_text)},
                     {"refusal", nullptr}});
  } else if (plan_.logprobs >= 0 && (with_logprobs || echo)) {
    std::vector<TokenLogprob> tokens;
    if (echo) tokens = prompt_logprobs_[prompt_index];
    std::move(output.logprobs.begin(), output.logprobs.end(), std::back_inserter(tokens));
    logprobs = dump(completion_logprobs(tokens, echo ? plan_.prompts[prompt_index].ids.front() : -1, text_,
                                        plan_.token_ids_as_text, choice.text_offset));
  }
  if (echo)
    events += event(index, plan_.prompts[prompt_index].text + output.text, logprobs, false);
  else
    events += event(index, output.text, logprobs, first && plan_.chat);
}

std::string Generation::event(size_t index, std::string_view text, const std::string& logprobs, bool role) const {
  const Choice& choice = choices_[index];
  std::string content;
  if (plan_.chat)
    content = role           ? fmt::format(R"("delta":{{"role":"assistant","content":{}}})", json_string(text))
              : text.empty() ? R"("delta":{})"
                             : fmt::format(R"("delta":{{"content":{}}})", json_string(text));
  else
    content = fmt::format(R"("text":{})", json_string(text));
  return fmt::format(
      "data: {},\"choices\":[{{\"index\":{},{},\"logprobs\":{},\"finish_reason\":{},\"stop_reason\":{}}}]{}}}\n\n",
      head_, index, content, logprobs, finish_json(choice.finish), choice.stop_reason,
      plan_.include_usage ? ",\"usage\":null" : "");
}

std::string Generation::usage() const { return dump(usage_json(prompt_tokens_, completion_tokens_, cached_tokens_, selection_)); }

std::string Generation::stream_end() const {
  std::string end;
  if (plan_.include_usage) end = fmt::format("data: {},\"choices\":[],\"usage\":{}}}\n\n", head_, usage());
  return end + "data: [DONE]\n\n";
}

std::string Generation::body() const {
  std::string out = head_ + ",\"choices\":[";
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    const size_t prompt_index = i / static_cast<size_t>(plan_.sampling.n);
    const PromptInput& prompt = plan_.prompts[prompt_index];
    std::string logprobs = "null";
    if (plan_.logprobs >= 0 && plan_.chat) {
      logprobs = dump({{"content", chat_logprobs(choice.logprobs, plan_.logprobs, text_, plan_.token_ids_as_text)},
                       {"refusal", nullptr}});
    } else if (plan_.logprobs >= 0) {
      std::vector<TokenLogprob> tokens;
      if (plan_.echo) tokens = prompt_logprobs_[prompt_index];
      tokens.insert(tokens.end(), choice.logprobs.begin(), choice.logprobs.end());
      int64_t offset = 0;
      logprobs = dump(
          completion_logprobs(tokens, plan_.echo ? prompt.ids.front() : -1, text_, plan_.token_ids_as_text, offset));
    }
    if (i > 0) out += ',';
    const std::string content =
        plan_.chat
            ? fmt::format(R"("message":{{"role":"assistant","content":{},"refusal":null}})", json_string(choice.text))
            : fmt::format(R"("text":{})", json_string(plan_.echo ? prompt.text + choice.text : choice.text));
    out += fmt::format(R"({{"index":{},{},"logprobs":{},"finish_reason":{},"stop_reason":{})", i, content, logprobs,
                       finish_json(choice.finish), choice.stop_reason);
    if (plan_.prompt_logprobs >= 0)
      out += ",\"prompt_logprobs\":" +
             dump(prompt_logprobs_json(prompt_logprobs_[prompt_index], plan_.prompt_logprobs, text_));
    out += '}';
  }
  return out + "],\"usage\":" + usage() + "}";
}

}  // namespace tinyserve
