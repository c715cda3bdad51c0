// Any bytes as the body of a request, or (first letter 'h') as the bytes of a connection. Whatever cannot be used is an
// ApiError; what is accepted obeys every limit, and the answers built from it are JSON.

#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "server/api_error.h"
#include "server/generation.h"
#include "server/http_parser.h"
#include "server/json_fields.h"
#include "server/request_parsing.h"
#include "server/response_json.h"
#include "text/chat_template.h"

namespace tinyserve {
namespace {

constexpr int32_t kVocab = 300;
constexpr int32_t kContext = 2000;

void expect(bool condition) {
  if (!condition) std::abort();
}

/// Tokens are bytes; those from 256 on are special.
class Bytes final : public TextFront {
 public:
  int32_t vocab_size() const override { return kVocab; }
  int32_t longest_token_bytes() const override { return 3; }
  std::vector<int32_t> encode(std::string_view text, bool add_special) const override {
    std::vector<int32_t> ids;
    if (add_special && text.size() % 2 == 0) ids.push_back(256);
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string decode(std::span<const int32_t> ids, bool) const override {
    std::string text;
    for (const int32_t id : ids) text += id < 128 ? static_cast<char>(id) : '?';
    return text;
  }
  std::string token_bytes(int32_t id) const override {
    expect(id >= 0 && id < kVocab);
    return id < 256 ? std::string(1, static_cast<char>(id)) : "<s>";
  }
  std::string render_chat(const OrderedJson& messages, const OrderedJson* tools, bool add_generation_prompt,
                          const OrderedJson* extra) const override {
    static const ChatTemplate chat_template(
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
        "{{ m['content'] }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        "", "<|endoftext|>");
    return chat_template.render(messages, tools, add_generation_prompt, extra);
  }
};

void check_plan(GenerationPlan plan, const ServerConfig& config, const TextFront& text) {
  const SamplingParams& s = plan.sampling;
  expect(s.n >= 1 && s.n <= config.max_n && !plan.prompts.empty());
  expect(plan.prompts.size() * static_cast<size_t>(s.n) <= static_cast<size_t>(config.max_choices));
  expect(s.min_tokens >= 0 && s.top_k >= 0 && s.top_p > 0 && s.top_p <= 1 && s.temperature >= 0);
  expect(s.logprobs >= -1 && s.logprobs <= config.max_logprobs && s.prompt_logprobs <= config.max_logprobs);
  for (const auto& stop : s.stop) expect(!stop.empty());
  for (const auto& [id, bias] : s.logit_bias) expect(id >= 0 && id < kVocab && bias >= -100 && bias <= 100);
  for (const PromptInput& prompt : plan.prompts) {
    expect(!prompt.ids.empty() && static_cast<int64_t>(prompt.ids.size()) + s.max_tokens.value_or(1) <= kContext);
    for (const int32_t id : prompt.ids) expect(id >= 0 && id < kVocab);
  }

  const bool stream = plan.stream;
  const size_t num_prompts = plan.prompts.size();
  const int32_t n = s.n, k = s.logprobs;
  const auto logprobs = [&](int32_t token) { return TokenLogprob{token, -1.5f, {{(token + 1) % kVocab, -0.5f}, {token, -1.5f}}}; };
  Generation generation(std::move(plan), text, "id", 1);
  std::string events;
  for (size_t p = 0; p < num_prompts; ++p)
    for (int32_t i = 0; i < n; ++i) {
      Output output;
      output.index = i;
      output.first = i == 0;
      if (output.first && generation.plan().sampling.prompt_logprobs >= 0)
        for (size_t t = 1; t < generation.plan().prompts[p].ids.size(); ++t)
          output.prompt_logprobs.push_back(logprobs(generation.plan().prompts[p].ids[t]));
      output.token_ids = {0xC3};
      output.text = "\xC3\xA9\"\\";
      if (k >= 0) output.logprobs = {logprobs(0xC3)};
      output.finish = FinishReason::kStop;
      output.stop_reason = generation.plan().sampling.stop.empty() ? "x" : generation.plan().sampling.stop[0];
      output.request_done = i + 1 == n;
      generation.take(p, std::move(output), events);
    }
  expect(generation.done());
  if (!stream) return expect(Json::accept(generation.body()));
  events += generation.stream_end();
  for (size_t at = 0; at < events.size();) {
    const size_t end = events.find("\n\n", at);
    expect(end != std::string::npos && events.compare(at, 6, "data: ") == 0);
    const std::string_view event = std::string_view(events).substr(at + 6, end - at - 6);
    expect(event == "[DONE]" || Json::accept(event));
    at = end + 2;
  }
}

void parse_connection(std::string_view data) {
  // The first byte says in how large pieces the rest arrives.
  const size_t step = data.empty() ? 1 : static_cast<unsigned char>(data[0]) + size_t{1};
  if (!data.empty()) data.remove_prefix(1);
  HttpParser parser(512, 4096);
  std::string in;
  for (size_t at = 0; at < data.size(); at += step) {
    in += data.substr(at, step);
    while (!in.empty()) {
      size_t taken = 0;
      const auto event = parser.put(in, taken);
      expect(taken <= in.size());
      in.erase(0, taken);
      if (event == HttpParser::Event::kNeedMore) break;
      if (event == HttpParser::Event::kError) {
        expect(parser.error_status() >= 400 && !parser.error_message().empty());
        expect(Json::accept(error_body(ApiError(parser.error_status(), parser.error_message()))));
        return;
      }
      if (event == HttpParser::Event::kHeader) {
        const HttpRequest head = parser.head();
        expect(head.path.size() <= 512 && head.authorization.size() <= 512);
      }
      if (parser.done()) {
        expect(parser.take_body().size() <= 4096);
        return;
      }
    }
    expect(in.size() <= 512 + step);
  }
}

}  // namespace
}  // namespace tinyserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tinyserve;
  static const Bytes text;
  static const ServerConfig config = [] {
    ServerConfig c;
    c.model_names = {"m"};
    c.max_json_values = 2000;
    c.max_prompts = 8;
    c.max_n = 8;
    c.max_choices = 16;
    return c;
  }();
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'h') {
    parse_connection(rest);
    return 0;
  }
  const ApiContext context{config, text, kContext};
  try {
    const OrderedJson body = parse_body(rest, config.max_json_values);
    switch (data[0]) {
      case 't': expect(Json::accept(answer_tokenize(body, context))); break;
      case 'd': expect(Json::accept(answer_detokenize(body, context))); break;
      case 'p': check_plan(plan_completion(body, context), config, text); break;
      default: check_plan(plan_chat(body, context), config, text); break;
    }
  } catch (const ApiError& error) {
    expect(error.status >= 400 && error.status < 500 && error.what()[0] != '\0');
    expect(std::string_view(error.what()).size() < 4096);
    expect(Json::accept(error_body(error)));
  }
  return 0;
}
