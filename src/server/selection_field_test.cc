// The field "tinyserve" of requests, and what answers say of it.
#include "server/selection_field.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "server/api_error.h"
#include "server/response_json.h"
#include "server/server_test_util.h"

namespace tinyserve {
namespace {

using ::testing::HasSubstr;

SelectionRequest read(const std::string& object, const SelectionConfig& server = {.policy = "tinyserve"}) {
  const OrderedJson body = parse_body("{\"tinyserve\": " + object + "}", 1000);
  return read_selection(Fields(body), server);
}

TEST(SelectionField, IsRead) {
  EXPECT_FALSE(read("null").policy);
  EXPECT_FALSE(read("{}").budget);
  EXPECT_FALSE(read(R"({"budget": null})").budget);
  const SelectionRequest r =
      read(R"({"policy": "tinyserve", "budget": 64, "top_p": 0.5, "coded": 0, "select_from": 7, "audit": false})");
  EXPECT_EQ(r.policy, "tinyserve");
  EXPECT_EQ(r.budget, 64);
  EXPECT_EQ(r.coded, 0);
  EXPECT_EQ(r.from, 7);
  EXPECT_EQ(r.top_p, 0.5f);
  EXPECT_EQ(r.audit, false);
  EXPECT_EQ(read(R"({"budget_share": 1})").budget_share, 1.0f);
  EXPECT_EQ(read(R"({"epsilon": 0.02})").epsilon, 0.02f);
  EXPECT_EQ(read(R"({"policy": "full"})").policy, "full");
  EXPECT_EQ(read(R"({"policy": "full"})", {}).policy, "full");
}

TEST(SelectionField, EveryBadValueIsNamed) {
  struct Case {
    const char* object;
    const char* param;
    const char* message;
  };
  for (const Case& c : {
           Case{"7", "tinyserve", "must be a JSON object"},
           Case{"\"full\"", "tinyserve", "must be a JSON object"},
           Case{"[]", "tinyserve", "must be a JSON object"},
           Case{R"({"bugdet": 1})", "tinyserve.bugdet", "has no member \"bugdet\"; it has: policy, budget"},
           Case{R"({"bugdet": null})", "tinyserve.bugdet", "has no member"},
           Case{R"({"policy": 1})", "tinyserve.policy", "must be a string"},
           Case{R"({"policy": "quest"})", "tinyserve.policy", "\"full\" or \"tinyserve\""},
           Case{R"({"budget": 0})", "tinyserve.budget", "integer from 1 to 1048576, got 0"},
           Case{R"({"budget": 1e3})", "tinyserve.budget", "got 1000.0"},
           Case{R"({"budget": "64"})", "tinyserve.budget", "got \"64\""},
           Case{R"({"budget": true})", "tinyserve.budget", "got true"},
           Case{R"({"coded": -1})", "tinyserve.coded", "got -1"},
           Case{R"({"select_from": -1})", "tinyserve.select_from", "got -1"},
           Case{R"({"budget_share": 0})", "tinyserve.budget_share", "above 0 and at most 1, got 0"},
           Case{R"({"budget_share": 1.5})", "tinyserve.budget_share", "got 1.5"},
           Case{R"({"top_p": -0.5})", "tinyserve.top_p", "above 0"},
           Case{R"({"epsilon": 1})", "tinyserve.epsilon", "below 1"},
           Case{R"({"epsilon": "0.1"})", "tinyserve.epsilon", "got \"0.1\""},
           Case{R"({"audit": 1})", "tinyserve.audit", "true or false"},
           Case{R"({"budget": 64, "budget_share": 0.5})", "tinyserve.budget_share", "exclude each other"},
           Case{R"({"budget": 64, "epsilon": 0.5})", "tinyserve.epsilon", "exclude each other"},
           Case{R"({"top_p": 0.5, "epsilon": 0.5})", "tinyserve.epsilon", "exclude each other"},
           Case{R"({"epsilon": 0.5, "audit": false})", "tinyserve.audit", "held by the audit"},
           Case{R"({"policy": "full", "budget": 64})", "tinyserve.budget", "means nothing under the policy \"full\""},
       }) {
    try {
      read(c.object);
      ADD_FAILURE() << "accepted: " << c.object;
    } catch (const ApiError& e) {
      EXPECT_EQ(e.status, 400);
      EXPECT_EQ(e.param, c.param) << c.object;
      EXPECT_THAT(e.what(), HasSubstr(c.message));
    }
  }
  EXPECT_THROW(read(R"({"budget": 64})", {}), ApiError) << "the server attends densely";
}

TEST(SelectionField, BothEndpointsTakeItAndTheEngineGetsIt) {
  const auto streaming = [](EngineConfig& c) { c.selection = {.policy = "streaming"}; };
  testing::TestServer server([](ServerConfig& c) { c.selection = {.policy = "streaming"}; }, 0, streaming);
  testing::RawClient client(server.port);
  const auto completion = [&](const std::string& field) {
    return client.post("/v1/completions",
                       R"({"prompt": "hi", "temperature": 0, "max_tokens": 3, "tinyserve": )" + field + "}");
  };
  const auto chat = [&](const std::string& field) {
    return client.post(
        "/v1/chat/completions",
        R"({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "tinyserve": )" + field + "}");
  };
  for (const auto& post : {std::function(completion), std::function(chat)}) {
    EXPECT_EQ(post(R"({"budget": 32})").status, 200);
    EXPECT_EQ(post(R"({"policy": "full"})").status, 200);
    const testing::Reply bad = post(R"({"coded": 32})");
    EXPECT_EQ(bad.status, 400);
    EXPECT_EQ(bad.json()["error"]["param"], "tinyserve.coded");
    EXPECT_EQ(bad.json()["error"]["type"], "invalid_request_error");
  }
}

TEST(SelectionField, UsageTellsWhatWasReadAndAudited) {
  EXPECT_FALSE(usage_json(1, 2, 0, {}).contains("tinyserve"));
  SelectionAccount account{
      .reads = 4, .bytes = 10, .dense_bytes = 100, .exact_share = 3, .coded_share = 0.5, .estimated_share = 0.5};
  Json usage = usage_json(1, 2, 0, account)["tinyserve"];
  EXPECT_EQ(usage, Json::parse(
                       R"({"bytes_share": 0.1, "exact_share": 0.75, "coded_share": 0.125, "estimated_share": 0.125})"));
  account.audit.reads = 4;
  account.audit.estimated = 0.5;
  account.audit.coded = 0.5;
  account.audit.estimated_error = {
      .draws = 3, .sum = 0.25, .variance = 0.01, .freedom = 1e-6};  // 100 degrees of freedom
  account.audit.coded_error = {.draws = 2, .sum = 0, .variance = 0, .freedom = 0};
  usage = usage_json(1, 2, 0, account)["tinyserve"]["audit"];
  EXPECT_EQ(usage["reads"], 4);
  EXPECT_EQ(usage["draws"], 5);
  EXPECT_DOUBLE_EQ(usage["estimated_error"], 0.0625);
  EXPECT_DOUBLE_EQ(usage["estimated_share"], 0.1875);
  EXPECT_NEAR(usage["estimated_error_interval"][1].get<double>(), 0.0625 + 1.984 * 0.1 / 4, 1e-5);
  EXPECT_NEAR(usage["estimated_interval"][0].get<double>(), 0.1875 - 1.984 * 0.1 / 4, 1e-5);
  EXPECT_EQ(usage["coded_interval"], Json::parse("[0.125, 0.125]"));
  EXPECT_FALSE(usage.contains("dense"));
  account.audit.checked = 2, account.audit.true_estimated = 0.5, account.audit.true_coded = 0.25,
  account.audit.output_error = 0.125;
  EXPECT_EQ(usage_json(1, 2, 0, account)["tinyserve"]["audit"]["dense"],
            Json::parse(R"({"reads": 2, "estimated_share": 0.25, "coded_share": 0.125, "output_error": 0.0625})"));
}

}  // namespace
}  // namespace tinyserve
