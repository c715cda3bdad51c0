#include "engine/sampling_params.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace tinyserve {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kVocab = 100, kContext = 1000;
constexpr int32_t kIntMax = std::numeric_limits<int32_t>::max(), kIntMin = std::numeric_limits<int32_t>::min();
const float kNan = std::nanf(""), kInf = std::numeric_limits<float>::infinity();

/// The message that refuses these parameters; "" when they are accepted.
template <class Edit>
std::string refusal(Edit edit, int64_t prompt_len = 10) {
  SamplingParams p;
  edit(p);
  try {
    validate(p, kVocab, kContext, prompt_len);
  } catch (const InputError& e) {
    return e.what();
  }
  return "";
}

#define REFUSES(field, ...) EXPECT_THAT(refusal([](SamplingParams& p) { __VA_ARGS__; }), HasSubstr(field))
#define ACCEPTS(...) EXPECT_EQ(refusal([](SamplingParams& p) { __VA_ARGS__; }), "")

TEST(Validate, AcceptsTheDefaultsAndTheEndsOfEveryRange) {
  ACCEPTS((void)p);
  ACCEPTS(p.n = 128);
  ACCEPTS(p.temperature = 0);
  ACCEPTS(p.top_k = -1);
  ACCEPTS(p.top_k = kIntMax);
  ACCEPTS(p.top_p = 1e-6f);
  ACCEPTS(p.min_p = 1);
  ACCEPTS(p.presence_penalty = -2; p.frequency_penalty = 2);
  ACCEPTS(p.logit_bias = {{0, -100.0f}, {99, 100.0f}});
  ACCEPTS(p.stop.assign(16, std::string(1024, 'x')));
  ACCEPTS(p.logprobs = 20; p.prompt_logprobs = 0);
  ACCEPTS(p.max_tokens = 990; p.min_tokens = 990);
  ACCEPTS(p.max_tokens = 0);
}

TEST(Validate, NamesTheFieldOutOfRange) {
  for (int32_t n : {0, -1, 129, kIntMax, kIntMin})
    EXPECT_THAT(refusal([&](auto& p) { p.n = n; }), HasSubstr("n must be"));
  for (float t : {-0.1f, kNan, kInf, -kInf})
    EXPECT_THAT(refusal([&](auto& p) { p.temperature = t; }), HasSubstr("temperature"));
  for (float t : {0.0f, -1.0f, 1.01f, kNan}) EXPECT_THAT(refusal([&](auto& p) { p.top_p = t; }), HasSubstr("top_p"));
  for (float t : {-0.01f, 1.01f, kNan}) EXPECT_THAT(refusal([&](auto& p) { p.min_p = t; }), HasSubstr("min_p"));
  for (float t : {-2.01f, 2.01f, kNan, kInf}) {
    EXPECT_THAT(refusal([&](auto& p) { p.presence_penalty = t; }), HasSubstr("presence_penalty"));
    EXPECT_THAT(refusal([&](auto& p) { p.frequency_penalty = t; }), HasSubstr("frequency_penalty"));
  }
  for (float t : {0.0f, -1.0f, kNan, kInf})
    EXPECT_THAT(refusal([&](auto& p) { p.repetition_penalty = t; }), HasSubstr("repetition_penalty"));
  REFUSES("top_k", p.top_k = -2);
  REFUSES("logit_bias", p.logit_bias = {{100, 0.0f}});
  REFUSES("logit_bias", p.logit_bias = {{-1, 0.0f}});
  REFUSES("logit_bias", p.logit_bias = {{5, 100.5f}});
  REFUSES("logit_bias", p.logit_bias = {{5, std::nanf("")}});
  REFUSES("logit_bias", p.logit_bias.assign(101, {5, 1.0f}));
  REFUSES("stop", p.stop.assign(17, "x"));
  REFUSES("stop", p.stop = {"fine", ""});
  REFUSES("stop", p.stop = {std::string(1025, 'x')});
  REFUSES("stop_token_ids", p.stop_token_ids = {100});
  REFUSES("stop_token_ids", p.stop_token_ids = {-5});
  REFUSES("stop_token_ids", p.stop_token_ids.assign(1025, 1));
  REFUSES("logprobs", p.logprobs = 21);
  REFUSES("logprobs", p.logprobs = -2);
  REFUSES("prompt_logprobs", p.prompt_logprobs = 21);
  REFUSES("max_tokens", p.max_tokens = -1);
  REFUSES("max_tokens", p.max_tokens = kIntMin);
  REFUSES("min_tokens", p.min_tokens = -1);
  REFUSES("min_tokens", p.min_tokens = 11; p.max_tokens = 10);
  REFUSES("min_tokens", p.min_tokens = kIntMax);
}

TEST(Validate, SaysHowLongAContextMayBe) {
  REFUSES("maximum context length is 1000 tokens, however you requested 1001", p.max_tokens = 991);
  REFUSES("maximum context length is 1000 tokens, however you requested 2147483657 tokens", p.max_tokens = kIntMax);
  EXPECT_EQ(refusal([](auto&) {}, 999), "");
  EXPECT_THAT(refusal([](auto&) {}, 1000), HasSubstr("maximum context length"));  // no room for a token
  EXPECT_EQ(refusal([](auto& p) { p.max_tokens = 0; }, 1000), "");
  EXPECT_THAT(refusal([](auto& p) { p.max_tokens = 0; }, 1001), HasSubstr("maximum context length"));
  EXPECT_THAT(refusal([](auto&) {}, int64_t{1} << 40), HasSubstr("maximum context length"));
  EXPECT_THAT(refusal([](auto&) {}, 0), HasSubstr("prompt"));
}

TEST(Validate, ChecksPromptIds) {
  auto check = [](std::vector<int32_t> prompt) { validate(Request{std::move(prompt), {}}, kVocab, kContext); };
  EXPECT_NO_THROW(check({0, 99}));
  EXPECT_THROW(check({}), InputError);
  EXPECT_THROW(check({1, 100}), InputError);
  EXPECT_THROW(check({-1}), InputError);
}

}  // namespace
}  // namespace tinyserve
