#include "server/request_parsing.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "server/api_error.h"
#include "server/json_fields.h"
#include "server/response_json.h"
#include "server/server_test_util.h"

namespace tinyserve {
namespace {

using testing::ByteText;
using ::testing::HasSubstr;

class RequestParsingTest : public ::testing::Test {
 protected:
  RequestParsingTest() { config.model_names = {"fake"}; }
  ApiContext context() const { return {config, text, 1000}; }
  GenerationPlan completion(std::string_view body) const {
    return plan_completion(parse_body(body, config.max_json_values), context());
  }
  GenerationPlan chat(std::string_view body) const {
    return plan_chat(parse_body(body, config.max_json_values), context());
  }
  /// The error a body gives.
  ApiError error(bool is_chat, std::string_view body) const {
    try {
      is_chat ? chat(body) : completion(body);
    } catch (const ApiError& e) {
      return e;
    }
    ADD_FAILURE() << "accepted: " << body;
    return ApiError(0, "");
  }

  ByteText text;
  ServerConfig config;
};

struct BadInput {
  const char* body;
  const char* param;
  const char* message;  // a part of it
  const char* code = "";
};

// Fields that follow are put into an otherwise good request.
constexpr BadInput kBadSampling[] = {
    {R"("n": 0)", "n", "integer from 1 to 128, got 0"},
    {R"("n": -1)", "n", "got -1"},
    {R"("n": 2.0)", "n", "got 2.0"},
    {R"("n": "2")", "n", "got \"2\""},
    {R"("n": true)", "n", "got true"},
    {R"("n": [1])", "n", "got a list of 1"},
    {R"("n": {"a":1})", "n", "got an object"},
    {R"("n": 9223372036854775807)", "n", "integer from 1"},
    {R"("n": 9223372036854775808)", "n", "integer from 1"},
    {R"("n": 18446744073709551616)", "n", "integer from 1"},
    {R"("n": 1e3)", "n", "integer from 1"},
    {R"("max_tokens": -1)", "max_tokens", "got -1"},
    {R"("max_tokens": 2147483648)", "max_tokens", "to 2147483647"},
    {R"("max_tokens": 1.5)", "max_tokens", "integer"},
    {R"("max_tokens": "16")", "max_tokens", "integer"},
    {R"("max_tokens": false)", "max_tokens", "integer"},
    {R"("max_tokens": 5, "min_tokens": 6)", "min_tokens", "more than \"max_tokens\""},
    {R"("min_tokens": -5)", "min_tokens", "got -5"},
    {R"("temperature": -0.1)", "temperature", "got -0.1"},
    {R"("temperature": 101)", "temperature", "at most 100"},
    {R"("temperature": "hot")", "temperature", "got \"hot\""},
    {R"("temperature": true)", "temperature", "got true"},
    {R"("top_p": 0)", "top_p", "above 0"},
    {R"("top_p": 1.01)", "top_p", "at most 1"},
    {R"("top_k": -2)", "top_k", "from -1"},
    {R"("top_k": 2147483648)", "top_k", "integer"},
    {R"("top_k": 1.5)", "top_k", "integer"},
    {R"("min_p": -0.1)", "min_p", "from 0"},
    {R"("min_p": 1.1)", "min_p", "at most 1"},
    {R"("presence_penalty": 2.1)", "presence_penalty", "at most 2"},
    {R"("frequency_penalty": -2.1)", "frequency_penalty", "from -2"},
    {R"("repetition_penalty": 0)", "repetition_penalty", "from 0.01"},
    {R"("seed": 1.5)", "seed", "integer"},
    {R"("seed": 18446744073709551615)", "seed", "integer"},
    {R"("stop": 5)", "stop", "a string or a list"},
    {R"("stop": "")", "stop", "must not be empty"},
    {R"("stop": ["a", ""])", "stop[1]", "must not be empty"},
    {R"("stop": ["a", null])", "stop[1]", "must be a string"},
    {R"("stop": ["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])", "stop",
     "17 entries; at most 16"},
    {R"("stop_token_ids": 3)", "stop_token_ids", "list of token ids"},
    {R"("stop_token_ids": [3, 260])", "stop_token_ids[1]", "from 0 to 259, got 260"},
    {R"("stop_token_ids": [-1])", "stop_token_ids[0]", "got -1"},
    {R"("stop_token_ids": ["a"])", "stop_token_ids[0]", "integer"},
    {R"("logit_bias": [])", "logit_bias", "an object"},
    {R"("logit_bias": {"260": 1})", "logit_bias", "not a token id from 0 to 259"},
    {R"("logit_bias": {"-1": 1})", "logit_bias", "not a token id"},
    {R"("logit_bias": {"x": 1})", "logit_bias", "not a token id"},
    {R"("logit_bias": {"": 1})", "logit_bias", "not a token id"},
    {R"("logit_bias": {"99999999999999999999": 1})", "logit_bias", "not a token id"},
    {R"("logit_bias": {"5": 101})", "logit_bias.5", "at most 100"},
    {R"("logit_bias": {"5": "x"})", "logit_bias.5", "number"},
    {R"("stream": 1)", "stream", "true or false"},
    {R"("stream": "true")", "stream", "true or false"},
    {R"("stream_options": {"include_usage": true})", "stream_options", "needs \"stream\""},
    {R"("stream": true, "stream_options": [])", "stream_options", "must be a JSON object"},
    {R"("stream": true, "stream_options": {"include_usage": 1})", "stream_options.include_usage", "true or false"},
    {R"("stream": true, "stream_options": {"continuous_usage_stats": true})", "stream_options.continuous_usage_stats",
     "not supported", "unsupported_parameter"},
    {R"("ignore_eos": 1)", "ignore_eos", "true or false"},
    {R"("prompt_logprobs": 21)", "prompt_logprobs", "to 20"},
    {R"("prompt_logprobs": 1, "stream": true)", "prompt_logprobs", "cannot be streamed"},
    {R"("suffix": "x")", "suffix", "not supported", "unsupported_parameter"},
    {R"("chat_template": "{{ 1 }}")", "chat_template", "model folder only", "unsupported_parameter"},
    {R"("guided_json": {})", "guided_json", "Constrained decoding", "unsupported_parameter"},
    {R"("response_format": {"type": "json_object"})", "response_format", "not constrained", "unsupported_parameter"},
    {R"("response_format": "text")", "response_format", "must be a JSON object"},
    {R"("use_beam_search": true)", "use_beam_search", "not supported", "unsupported_parameter"},
    {R"("allowed_token_ids": [1])", "allowed_token_ids", "logit_bias", "unsupported_parameter"},
    {R"("truncate_prompt_tokens": 5)", "truncate_prompt_tokens", "not supported", "unsupported_parameter"},
    {R"("model": "gpt-4")", "model", "The model \"gpt-4\" is not served here; fake is.", "model_not_found"},
    {R"("model": 5)", "model", "must be a string"},
};

constexpr BadInput kBadCompletions[] = {
    {R"({})", "prompt", "missing"},
    {R"({"prompt": null})", "prompt", "missing"},
    {R"({"prompt": 5})", "prompt", "got 5"},
    {R"({"prompt": {}})", "prompt", "got an object"},
    {R"({"prompt": []})", "prompt", "is empty"},
    {R"({"prompt": [[]]})", "prompt[0]", "is empty"},
    {R"({"prompt": ["a", ""]})", "prompt[1]", "is empty"},
    {R"({"prompt": ["a", 5]})", "prompt[1]", "text or a list of token ids"},
    {R"({"prompt": [5, "a"]})", "prompt[1]", "integer"},
    {R"({"prompt": [5, -1]})", "prompt[1]", "from 0 to 259, got -1"},
    {R"({"prompt": [5, 260]})", "prompt[1]", "got 260"},
    {R"({"prompt": [5, 4294967296]})", "prompt[1]", "integer"},
    {R"({"prompt": [5, 1.0]})", "prompt[1]", "integer"},
    {R"({"prompt": [[5], [6, 999]]})", "prompt[1][1]", "got 999"},
    {R"({"prompt": [[5], [6, [7]]]})", "prompt[1][1]", "a list of 1"},
    {R"({"prompt": "a", "logprobs": 21})", "logprobs", "to 20"},
    {R"({"prompt": "a", "logprobs": true})", "logprobs", "integer"},
    {R"({"prompt": "a", "logprobs": -1})", "logprobs", "got -1"},
    {R"({"prompt": "a", "best_of": 2})", "best_of", "more candidates", "unsupported_parameter"},
    {R"({"prompt": "a", "best_of": 0})", "best_of", "integer"},
    {R"({"prompt": "a", "messages": []})", "messages", "/v1/chat/completions", "unsupported_parameter"},
    {R"({"prompt": "a", "echo": "yes"})", "echo", "true or false"},
    {R"({"prompt": "a", "max_tokens": 1000})", "prompt", "1001 were asked for: 1 of prompt and 1000",
     "context_length_exceeded"},
    {R"({"prompt": "a", "max_tokens": 2147483647})", "prompt", "2147483648 were asked for", "context_length_exceeded"},
};

constexpr BadInput kBadChats[] = {
    {R"({})", "messages", "missing"},
    {R"({"messages": "hi"})", "messages", "must be a list"},
    {R"({"messages": []})", "messages", "is empty"},
    {R"({"messages": ["hi"]})", "messages[0]", "must be a JSON object"},
    {R"({"messages": [{}]})", "messages[0].role", "missing"},
    {R"({"messages": [{"role": 1}]})", "messages[0].role", "string"},
    {R"({"messages": [{"role": "user"}]})", "messages[0].content", "got nothing"},
    {R"({"messages": [{"role": "user", "content": 5}]})", "messages[0].content", "got 5"},
    {R"({"messages": [{"role": "user", "content": [5]}]})", "messages[0].content[0]", "must be a JSON object"},
    {R"({"messages": [{"role": "user", "content": [{}]}]})", "messages[0].content[0].type", "missing"},
    {R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})", "messages[0].content[0]",
     "only \"text\"", "unsupported_parameter"},
    {R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})", "messages[0].content[0].text",
     "must be a string"},
    {R"({"messages": [{"role": "assistant", "tool_calls": 1}]})", "messages[0].tool_calls", "must be a list"},
    {R"({"messages": [{"role": "assistant", "tool_calls": [{}]}]})", "messages[0].tool_calls[0].function", "missing"},
    {R"({"messages": [{"role": "refused", "content": "x"}]})", "messages", "roles must be"},
    {R"({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0})", "max_tokens", "from 1"},
    {R"({"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": -3})", "max_completion_tokens",
     "from 1"},
    {R"({"messages": [{"role": "user", "content": "x"}], "logprobs": 1})", "logprobs", "true or false"},
    {R"({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 1})", "top_logprobs", "needs \"logprobs\""},
    {R"({"messages": [{"role": "user", "content": "x"}], "logprobs": true, "top_logprobs": 21})", "top_logprobs",
     "to 20"},
    {R"({"messages": [{"role": "user", "content": "x"}], "tools": {}})", "tools", "must be a list"},
    {R"({"messages": [{"role": "user", "content": "x"}], "tools": [{}]})", "tools[0].type", "must be \"function\""},
    {R"({"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"})", "tool_choice",
     "cannot be forced", "unsupported_parameter"},
    {R"({"messages": [{"role": "user", "content": "x"}], "tool_choice": {"type": "function"}})", "tool_choice",
     "cannot be forced", "unsupported_parameter"},
    {R"({"messages": [{"role": "user", "content": "x"}], "functions": []})", "functions", "Use \"tools\"",
     "unsupported_parameter"},
    {R"({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": 1})", "chat_template_kwargs",
     "must be a JSON object"},
    {R"({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"chat_template": "x"}})",
     "chat_template_kwargs.chat_template", "model folder only", "unsupported_parameter"},
    {R"({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"messages": []}})",
     "chat_template_kwargs.messages", "may not hold"},
    {R"({"messages": [{"role": "user", "content": "x"}], "continue_final_message": true, "add_generation_prompt": true})",
     "continue_final_message", "exclude"},
    {R"({"messages": [{"role": "assistant", "content": " "}], "continue_final_message": true})",
     "continue_final_message", "empty"},
    {R"({"messages": [{"role": "user", "content": "x"}], "max_tokens": 999})", "messages", "context is 1000",
     "context_length_exceeded"},
};

void expect(const ApiError& e, const BadInput& bad) {
  EXPECT_EQ(e.param, bad.param) << bad.body << "\n" << e.what();
  EXPECT_THAT(e.what(), HasSubstr(bad.message)) << bad.body;
  EXPECT_EQ(e.code, bad.code) << bad.body;
  EXPECT_EQ(e.status, e.code == "model_not_found" ? 404 : 400) << bad.body;
}

TEST_F(RequestParsingTest, BadSamplingFieldsAreNamed) {
  for (const BadInput& bad : kBadSampling) {
    expect(error(false, std::string(R"({"prompt": "a", )") + bad.body + "}"), bad);
    if (std::string_view(bad.param) == "max_tokens" && std::string_view(bad.message) == "got 0") continue;
    expect(error(true, std::string(R"({"messages": [{"role": "user", "content": "x"}], )") + bad.body + "}"), bad);
  }
}

TEST_F(RequestParsingTest, BadCompletionsAreNamed) {
  for (const BadInput& bad : kBadCompletions) expect(error(false, bad.body), bad);
}

TEST_F(RequestParsingTest, BadChatsAreNamed) {
  for (const BadInput& bad : kBadChats) expect(error(true, bad.body), bad);
}

TEST_F(RequestParsingTest, BodiesThatAreNoJsonObject) {
  for (const char* body : {"", " ", "nul", "{", "[1, 2]", "\"text\"", "5", "{\"prompt\": NaN}",
                           "{\"prompt\": \"a\", \"temperature\": 1e400}", "{\"prompt\": \"\xff\"}",
                           "{\"prompt\": \"\\ud800\"}", "{} {}", "{\"a\": 1,}", "{'a': 1}"})
    EXPECT_EQ(error(false, body).status, 400) << body;
  EXPECT_EQ(error(false, std::string_view("{\"prompt\": \"a\0\"}", 16)).status, 400);
  EXPECT_EQ(error(false, std::string_view("\0{}", 3)).status, 400);
}

TEST_F(RequestParsingTest, NestedAHundredThousandDeep) {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string body = R"({"prompt": )";
    for (int i = 0; i < 100000; ++i) body += open;
    EXPECT_THAT(error(false, body).what(), HasSubstr("nests arrays and objects more than"));
  }
}

TEST_F(RequestParsingTest, BodiesWhoseTreeWouldBeHugeAreRefusedBeforeParsing) {
  std::string body = R"({"prompt": [)";
  for (int i = 0; i < 1100000; ++i) body += "[],";
  EXPECT_THAT(error(false, body + "[]]}").what(), HasSubstr("JSON values"));
  body = "{";
  for (int i = 0; i < 100000; ++i) body += fmt::format("\"{}\":0,", i);
  EXPECT_THAT(error(false, body + "\"x\":0}").what(), HasSubstr("members"));
}

TEST_F(RequestParsingTest, ErrorMessagesStayShort) {
  const std::string huge(1 << 20, 'x');
  EXPECT_LT(std::string(error(false, R"({"prompt": "a", "n": ")" + huge + "\"}").what()).size(), 300u);
  EXPECT_LT(std::string(error(false, R"({"prompt": ")" + huge + "\xff\"}").what()).size(), 600u);
  EXPECT_LT(std::string(error(false, R"({"prompt": "a", "model": ")" + std::string(9000, 'y') + "\"}").what()).size(),
            300u);
}

// CVE-2026-34756: n = 10^12 made a server allocate for each choice.
TEST_F(RequestParsingTest, NumberOfChoicesPastAllBounds) {
  const ApiError e = error(false, R"({"prompt": "a", "n": 1000000000000})");
  EXPECT_EQ(e.param, "n");
  EXPECT_THAT(e.what(), HasSubstr("integer from 1 to 128, got 1000000000000"));
  EXPECT_EQ(error(true, R"({"messages": [{"role": "user", "content": "x"}], "n": 1000000000000})").param, "n");
  EXPECT_EQ(error(false, R"({"prompt": "a", "best_of": 1000000000000})").param, "best_of");
}

TEST_F(RequestParsingTest, EmptyPrompt) {
  EXPECT_THAT(error(false, R"({"prompt": ""})").what(), HasSubstr("\"prompt\" is empty"));
}

// CVE-2026-21869: a negative or overflowing count ended as an index.
TEST_F(RequestParsingTest, NegativeOrOverflowingCounts) {
  for (const char* field : {"n", "max_tokens", "min_tokens", "logprobs", "prompt_logprobs", "best_of", "top_k"})
    for (const char* value : {"-2", "-9223372036854775808", "2147483648", "4294967297", "9223372036854775808", "1e18"})
      EXPECT_EQ(error(false, fmt::format(R"({{"prompt": "a", "{}": {}}})", field, value)).param, field) << value;
}

// GHSA-7rxv-5jhh-j6xx: prompt and answer together past INT_MAX.
TEST_F(RequestParsingTest, TokenCountPastIntMax) {
  EXPECT_EQ(error(false, R"({"prompt": "abc", "max_tokens": 2147483647})").code, "context_length_exceeded");
  EXPECT_EQ(error(false, R"({"prompt": "abc", "max_tokens": 2147483648})").param, "max_tokens");
}

TEST_F(RequestParsingTest, TextsThatCannotFitAreNotTokenised) {
  text.delay_s = 10;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(error(false, R"({"prompt": ")" + std::string(1000 * 5 * 4 + 5000, 'a') + "\"}").code,
            "context_length_exceeded");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

TEST_F(RequestParsingTest, PromptsAndChoicesAreBounded) {
  std::string many = "[\"a\"";
  for (int i = 0; i < 128; ++i) many += ",\"a\"";
  EXPECT_EQ(error(false, R"({"prompt": )" + many + "]}").param, "prompt");
  EXPECT_EQ(error(false, R"({"n": 128, "prompt": ["a","a","a","a","a"]})").param, "prompt");
  EXPECT_EQ(completion(R"({"n": 128, "prompt": ["a","a","a","a"]})").prompts.size(), 4u);
}

TEST_F(RequestParsingTest, DefaultsAreOpenAis) {
  const GenerationPlan c = completion(R"({"prompt": "ab"})");
  EXPECT_EQ(c.model, "fake");
  EXPECT_EQ(c.sampling.max_tokens, 16);
  EXPECT_EQ(c.sampling.temperature, 1.0f);
  EXPECT_EQ(c.sampling.n, 1);
  EXPECT_EQ(c.logprobs, -1);
  EXPECT_FALSE(c.stream || c.echo || c.chat);
  EXPECT_EQ(c.prompts[0].ids, (std::vector<int32_t>{'a', 'b'}));
  const GenerationPlan m = chat(R"({"messages": [{"role": "user", "content": "x"}]})");
  EXPECT_TRUE(m.chat);
  EXPECT_EQ(m.sampling.max_tokens, std::nullopt);
  EXPECT_EQ(text.decode(m.prompts[0].ids, false), "user:x\nassistant:");
}

TEST_F(RequestParsingTest, GenerationConfigGivesDefaults) {
  config.default_sampling = {
      .temperature = 0.7f, .top_p = 0.95f, .top_k = 40, .min_p = 0.05f, .repetition_penalty = 1.1f};
  const SamplingParams s = completion(R"({"prompt": "ab", "top_p": 0.5})").sampling;
  EXPECT_EQ(s.temperature, 0.7f);
  EXPECT_EQ(s.top_p, 0.5f);
  EXPECT_EQ(s.top_k, 40);
  EXPECT_EQ(s.min_p, 0.05f);
  EXPECT_EQ(s.repetition_penalty, 1.1f);
}

TEST_F(RequestParsingTest, EveryFieldArrives) {
  const GenerationPlan p =
      completion(R"({"model": "fake", "prompt": [[1, 2], [3]], "n": 2, "best_of": 2, "max_tokens": 7, "min_tokens": 3,
    "temperature": 0, "top_p": 0.25, "top_k": 5, "min_p": 0.125, "presence_penalty": 0.5, "frequency_penalty": -0.5,
    "repetition_penalty": 1.25, "seed": -3, "stop": ["x", "yz"], "stop_token_ids": [9], "include_stop_str_in_output": true,
    "ignore_eos": true, "skip_special_tokens": false, "logit_bias": {"7": -100, "8": 1.5}, "logprobs": 3, "echo": true,
    "stream": true, "stream_options": {"include_usage": true}, "return_tokens_as_token_ids": true, "user": "me",
    "suffix": null, "guided_json": null, "bad_words": [], "length_penalty": 1, "something_new": {"a": 1}})");
  const SamplingParams& s = p.sampling;
  EXPECT_EQ(p.prompts.size(), 2u);
  EXPECT_EQ(p.prompts[0].ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(p.prompts[0].text, "\x01\x02");
  EXPECT_EQ(s.n, 2);
  EXPECT_EQ(s.max_tokens, 7);
  EXPECT_EQ(s.min_tokens, 3);
  EXPECT_EQ(s.temperature, 0.0f);
  EXPECT_EQ(s.top_p, 0.25f);
  EXPECT_EQ(s.top_k, 5);
  EXPECT_EQ(s.min_p, 0.125f);
  EXPECT_EQ(s.presence_penalty, 0.5f);
  EXPECT_EQ(s.frequency_penalty, -0.5f);
  EXPECT_EQ(s.repetition_penalty, 1.25f);
  EXPECT_EQ(s.seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(s.stop, (std::vector<std::string>{"x", "yz"}));
  EXPECT_EQ(s.stop_token_ids, (std::vector<int32_t>{9}));
  EXPECT_TRUE(s.include_stop_in_output && s.ignore_eos && !s.skip_special_tokens);
  EXPECT_EQ(s.logit_bias, (std::vector<std::pair<int32_t, float>>{{7, -100.0f}, {8, 1.5f}}));
  EXPECT_EQ(s.logprobs, 3);
  EXPECT_EQ(s.prompt_logprobs, 3);  // for the echo
  EXPECT_EQ(p.prompt_logprobs, -1);
  EXPECT_TRUE(p.echo && p.stream && p.include_usage && p.token_ids_as_text);
}

TEST_F(RequestParsingTest, ScoringAPromptNeedsNoRoomForAnAnswer) {
  const std::string full(1000, 'a');
  EXPECT_EQ(completion(R"({"prompt": ")" + full + R"(", "max_tokens": 0, "echo": true, "logprobs": 1})")
                .prompts[0]
                .ids.size(),
            1000u);
  EXPECT_EQ(error(false, R"({"prompt": ")" + full + R"(", "max_tokens": 1})").code, "context_length_exceeded");
}

TEST_F(RequestParsingTest, ChatPrompts) {
  auto prompt = [&](std::string_view body) { return text.decode(chat(body).prompts[0].ids, false); };
  EXPECT_EQ(
      prompt(
          R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "a"}]}]})"),
      "system:s\nuser:a\n\nassistant:");
  EXPECT_EQ(prompt(R"({"messages": [{"role": "user", "content": "a"}], "add_generation_prompt": false})"), "user:a\n");
  EXPECT_EQ(
      prompt(
          R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c "}], "continue_final_message": true})"),
      "user:a\nassistant:b c ");
  EXPECT_EQ(prompt(R"({"messages": [{"role": "assistant", "content": null}], "add_generation_prompt": false})"),
            "assistant:\n");
  const char* tool =
      R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": {"name": "f", "b": 1, "a": 2}}]%s})";
  EXPECT_EQ(prompt(std::string(tool).replace(std::string(tool).find("%s"), 2, "")),
            "user:a\ntools:[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"b\":1,\"a\":2}}]\nassistant:");
  EXPECT_EQ(prompt(std::string(tool).replace(std::string(tool).find("%s"), 2, R"(, "tool_choice": "none")")),
            "user:a\nassistant:");
  EXPECT_EQ(
      prompt(R"({"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"enable_thinking": false}})"),
      "user:a\nextra:{\"enable_thinking\":false}\nassistant:");
  const GenerationPlan p = chat(
      R"({"messages": [{"role": "user", "content": "a"}], "logprobs": true, "top_logprobs": 2, "max_tokens": 3, "max_completion_tokens": 4})");
  EXPECT_EQ(p.logprobs, 2);
  EXPECT_EQ(p.sampling.max_tokens, 4);
}

TEST_F(RequestParsingTest, TokenizeAndDetokenize) {
  auto tokenize = [&](std::string_view body) {
    return Json::parse(answer_tokenize(parse_body(body, 1000), context()));
  };
  const Json a = tokenize(R"({"prompt": "ab", "return_token_strs": true})");
  EXPECT_EQ(a, Json::parse(R"({"count": 2, "max_model_len": 1000, "tokens": [97, 98], "token_strs": ["a", "b"]})"));
  EXPECT_EQ(tokenize(R"({"messages": [{"role": "user", "content": "x"}]})")["count"], 17);
  EXPECT_EQ(tokenize(R"({"prompt": ""})")["tokens"], Json::array());
  EXPECT_THROW(tokenize(R"({})"), ApiError);
  EXPECT_THROW(tokenize(R"({"prompt": "a", "messages": []})"), ApiError);
  EXPECT_EQ(answer_detokenize(parse_body(R"({"tokens": [97, 98, 256]})", 1000), context()), R"({"prompt":"ab<eos>"})");
  EXPECT_THROW(answer_detokenize(parse_body(R"({"tokens": [97, 260]})", 1000), context()), ApiError);
  EXPECT_THROW(answer_detokenize(parse_body(R"({"tokens": "97"})", 1000), context()), ApiError);
}

TEST(JsonText, ErrorsHaveOpenAisShape) {
  EXPECT_EQ(
      Json::parse(error_body(bad_field("n", "no"))),
      Json::parse(R"({"error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": null}})"));
}

TEST(JsonText, StringsAreEscapedAndRepaired) {
  EXPECT_EQ(json_string("a\"\\\n\t\x01 é€😀"), "\"a\\\"\\\\\\n\\t\\u0001 é€😀\"");
  for (const std::string broken : {"\xff", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    const std::string text = json_string(broken);
    EXPECT_TRUE(Json::accept(text)) << text;
    EXPECT_THAT(text, HasSubstr("\xEF\xBF\xBD"));
  }
  EXPECT_EQ(Json::parse(json_string(std::string("a\0b", 3))).get<std::string>(), std::string("a\0b", 3));
}

}  // namespace
}  // namespace tinyserve
