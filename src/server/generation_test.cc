#include "server/generation.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "server/response_json.h"
#include "server/server_test_util.h"

namespace tinyserve {
namespace {

using testing::ByteText;

class GenerationTest : public ::testing::Test {
 protected:
  Generation make() { return Generation(std::move(plan), text, "id-1", 7); }
  static Output output(std::string piece, FinishReason finish = FinishReason::kNone, bool done = false,
                       int32_t index = 0) {
    Output o;
    o.index = index;
    o.text = std::move(piece);
    o.token_ids.resize(1);
    o.finish = finish;
    o.request_done = done;
    return o;
  }
  /// The JSON of every event but the end mark.
  static std::vector<Json> parse(const std::string& events) {
    testing::Reply reply;
    reply.body = events;
    std::vector<Json> list;
    for (const std::string& event : reply.events())
      if (event != "[DONE]") list.push_back(Json::parse(event));
    return list;
  }
  GenerationTest() {
    plan.model = "m";
    plan.prompts = {{{'p', 'q'}, "pq"}};
  }

  ByteText text;
  GenerationPlan plan;
};

TEST_F(GenerationTest, ChatStream) {
  plan.chat = plan.stream = plan.include_usage = true;
  Generation g = make();
  std::string events;
  g.take(0, output("a\"b"), events);
  g.take(0, output(""), events);  // held back: no event
  g.take(0, output("c", FinishReason::kStop, true), events);
  ASSERT_TRUE(g.done());
  const auto list = parse(events + g.stream_end());
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0],
            Json::parse(R"({"id": "id-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "usage": null,
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a\"b"}, "logprobs": null, "finish_reason": null, "stop_reason": null}]})"));
  EXPECT_EQ(list[1]["choices"][0]["delta"], Json::parse(R"({"content": "c"})"));
  EXPECT_EQ(list[1]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(list[2]["choices"], Json::array());
  EXPECT_EQ(list[2]["usage"]["completion_tokens"], 3);
  EXPECT_EQ(list[2]["usage"]["prompt_tokens"], 2);
  EXPECT_TRUE(g.stream_end().ends_with("data: [DONE]\n\n"));
}

TEST_F(GenerationTest, EveryChoiceOfAStreamBeginsWithItsRole) {
  plan.chat = plan.stream = true;
  plan.sampling.n = 2;
  Generation g = make();
  std::string events;
  g.take(0, output("a", FinishReason::kNone, false, 1), events);
  g.take(0, output("", FinishReason::kLength, false, 0), events);
  g.take(0, output("", FinishReason::kStop, true, 1), events);
  const auto list = parse(events);
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0]["choices"][0]["index"], 1);
  EXPECT_EQ(list[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(list[1]["choices"][0]["delta"], Json::parse(R"({"role": "assistant", "content": ""})"));
  EXPECT_EQ(list[2]["choices"][0]["delta"], Json::object());
  EXPECT_FALSE(list[2].contains("usage"));
}

TEST_F(GenerationTest, ChatAnswer) {
  plan.chat = true;
  plan.logprobs = 1;
  Generation g = make();
  std::string events;
  Output o = output("a");
  o.first = true;
  o.cached_prompt_tokens = 1;
  o.logprobs = {{'a', -0.5f, {{'b', -0.25f}, {'c', -3.0f}}}};
  g.take(0, std::move(o), events);
  Output last = output("", FinishReason::kStop, true);
  last.stop_reason = std::string("st\"op");
  last.logprobs = {{0xC3, -INFINITY, {{0xC3, -0.5f}}}};
  g.take(0, std::move(last), events);
  EXPECT_EQ(events, "");
  const Json body = Json::parse(g.body());
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["choices"][0]["message"], Json::parse(R"({"role": "assistant", "content": "a", "refusal": null})"));
  EXPECT_EQ(body["choices"][0]["stop_reason"], "st\"op");
  EXPECT_EQ(body["choices"][0]["logprobs"]["content"], Json::parse(R"([
    {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -0.25, "bytes": [98]}]},
    {"token": "bytes:\\xc3", "logprob": -9999.0, "bytes": [195], "top_logprobs": [{"token": "bytes:\\xc3", "logprob": -0.5, "bytes": [195]}]}])"));
  EXPECT_EQ(
      body["usage"],
      Json::parse(
          R"({"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}})"));
}

// What lm-eval's local-completions reads: the prompt's log-probabilities, the first of which is null.
TEST_F(GenerationTest, EchoWithLogprobs) {
  plan.echo = true;
  plan.logprobs = 1;
  plan.sampling.max_tokens = 1;
  for (const bool stream : {false, true}) {
    GenerationPlan copy = plan;
    copy.stream = stream;
    Generation g(std::move(copy), text, "id-1", 7);
    std::string events;
    Output o = output("r", FinishReason::kLength, true);
    o.first = true;
    o.prompt_logprobs = {{'q', -2.0f, {{'z', -1.0f}}}};
    o.logprobs = {{'r', -0.5f, {{'r', -0.5f}}}};
    g.take(0, std::move(o), events);
    const Json choice = stream ? parse(events)[0]["choices"][0] : Json::parse(g.body())["choices"][0];
    EXPECT_EQ(choice["text"], "pqr");
    EXPECT_EQ(choice["logprobs"], Json::parse(R"({"tokens": ["p", "q", "r"], "token_logprobs": [null, -2.0, -0.5],
      "top_logprobs": [null, {"z": -1.0, "q": -2.0}, {"r": -0.5}], "text_offset": [0, 1, 2]})"));
  }
}

TEST_F(GenerationTest, ManyPromptsCountOn) {
  plan.prompts.push_back({{'x'}, ""});
  plan.sampling.n = 2;
  plan.prompt_logprobs = 0;
  Generation g = make();
  std::string events;
  for (size_t p : {1, 0}) {
    Output first = output("A", FinishReason::kStop, false, 1);
    first.first = true;
    if (p == 0) first.prompt_logprobs = {{'q', -1.0f, {}}};
    g.take(p, std::move(first), events);
    EXPECT_FALSE(g.done());
    g.take(p, output(p == 0 ? "zero" : "one", FinishReason::kStop, true, 0), events);
  }
  ASSERT_TRUE(g.done());
  const Json body = Json::parse(g.body());
  ASSERT_EQ(body["choices"].size(), 4u);
  EXPECT_EQ(body["choices"][0]["text"], "zero");
  EXPECT_EQ(body["choices"][2]["text"], "one");
  EXPECT_EQ(body["choices"][3]["index"], 3);
  EXPECT_EQ(body["choices"][0]["prompt_logprobs"],
            Json::parse(R"([null, {"113": {"logprob": -1.0, "decoded_token": "q"}}])"));
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(body["usage"]["completion_tokens"], 4);
}

TEST_F(GenerationTest, AbortIsNoAnswer) {
  Generation g = make();
  std::string events;
  Output o = output("", FinishReason::kAbort, true);
  o.error = "no memory";
  g.take(0, std::move(o), events);
  EXPECT_TRUE(g.aborted());
  EXPECT_EQ(g.abort_reason(), "no memory");
}

TEST(Logprobs, TokensMayBeNamedByNumber) {
  ByteText text;
  int64_t offset = 0;
  const Json j = completion_logprobs({{0xE2, -1.0f, {{5, -0.5f}}}}, -1, text, true, offset);
  EXPECT_EQ(j["tokens"], Json::parse(R"(["token_id:226"])"));
  EXPECT_EQ(j["top_logprobs"], Json::parse(R"([{"token_id:226": -1.0, "token_id:5": -0.5}])"));
}

}  // namespace
}  // namespace tinyserve
