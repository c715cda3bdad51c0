// The server over sockets, with the real engine and a model that says the alphabet.
#include "server/server.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "server/server_test_util.h"

namespace tinyserve {
namespace {

using ::testing::HasSubstr;
using testing::RawClient;
using testing::Reply;
using testing::TestServer;

constexpr const char* kChat = R"({"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 5})";
constexpr const char* kLong = R"({"prompt": "hi", "temperature": 0, "max_tokens": 1500, "stream": true})";

/// What the model says after `prompt_tokens` tokens.
std::string alphabet(size_t prompt_tokens, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += static_cast<char>('a' + (prompt_tokens + i) % 26);
  return text;
}

TEST(Server, AnswersTheSmallEndpoints) {
  TestServer server;
  RawClient client(server.port);
  EXPECT_EQ(client.get("/health").json()["status"], "ok");
  EXPECT_EQ(client.get("/version").json()["version"], TINYSERVE_VERSION);
  const Json models = client.get("/v1/models").json();
  EXPECT_EQ(models["data"].size(), 2u);
  EXPECT_EQ(models["data"][0]["id"], "fake");
  EXPECT_EQ(models["data"][0]["max_model_len"], 2048);
  EXPECT_EQ(client.get("/v1/models/fake").json()["object"], "model");
  EXPECT_EQ(client.get("/v1/models/alias%2Fof").json()["id"], "alias/of");
  EXPECT_EQ(client.get("/v1/models/alias/of").json()["id"], "alias/of");
  EXPECT_EQ(client.get("/v1/models/other").status, 404);
  EXPECT_EQ(client.get("/health/").status, 200);
  EXPECT_EQ(client.get("/health?x=1").status, 200);
  const Reply metrics = client.get("/metrics");
  EXPECT_THAT(metrics.field("Content-Type"), HasSubstr("text/plain"));
  EXPECT_THAT(metrics.body, HasSubstr("tinyserve:num_requests_running{model_name=\"fake\"} 0"));
  EXPECT_THAT(metrics.body, HasSubstr("tinyserve:http_requests_total{path=\"/v1/models/{id}\",status=\"200\"} 3"));
}

TEST(Server, ShowsItsPages) {
  TestServer server([](ServerConfig& c) { c.api_keys = {"secret"}; });
  RawClient client(server.port);
  EXPECT_EQ(client.get("/debug/kv").status, 401);
  const auto get = [&](const char* path) {
    client.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n");
    return client.reply();
  };
  const Json idle = get("/debug/kv").json();
  EXPECT_EQ(idle["num_pages"], 512);
  EXPECT_EQ(idle["pages"], Json::parse(R"([[512,"e"]])"));
  uint64_t before = idle["last_step"];
  RawClient other(server.port);
  const std::string body = kLong;
  other.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: " +
             std::to_string(body.size()) + "\r\n\r\n" + body);
  Json busy;
  ASSERT_TRUE(TestServer::eventually([&] { return (busy = get("/debug/kv").json())["used"] > 1; }));
  EXPECT_GT(busy["last_step"], before);
  int64_t pages = 0, used = 0;
  for (const Json& span : busy["pages"]) {
    pages += span[0].get<int64_t>();
    if (span[1] == "u") {
      used += span[0].get<int64_t>();
      EXPECT_EQ(span[2], 1);  // the first sequence
    }
  }
  EXPECT_EQ(pages, 512);
  EXPECT_EQ(used, busy["used"]);
  EXPECT_EQ(busy["fragmentation"]["sequences"], 1);
  const Reply metrics = get("/metrics");
  EXPECT_THAT(metrics.body, HasSubstr("tinyserve:kv_fragmentation{kind=\"external\",model_name=\"fake\"}"));
  EXPECT_THAT(metrics.body, HasSubstr("tinyserve:kv_descriptors_per_sequence{model_name=\"fake\"} 1"));
}

TEST(Server, UnknownPathsAndMethods) {
  TestServer server;
  RawClient client(server.port);
  const Reply none = client.get("/v2/none");
  EXPECT_EQ(none.status, 404);
  EXPECT_EQ(none.json()["error"]["type"], "invalid_request_error");
  EXPECT_EQ(client.get("/").status, 404);
  const Reply get = client.get("/v1/completions");
  EXPECT_EQ(get.status, 405);
  EXPECT_EQ(get.field("Allow"), "POST, OPTIONS");
  EXPECT_EQ(client.get("/health").status, 200);  // the connection is still good
  client.send("OPTIONS /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
  const Reply options = client.reply(true);
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.field("Allow"), "GET, HEAD, OPTIONS");
  client.send("HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
  const Reply head = client.reply(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_NE(head.field("Content-Length"), "0");
  EXPECT_EQ(client.get("/health").status, 200);  // nothing of a body came after the head
  EXPECT_EQ(RawClient(server.port).post("/health", "{}").status, 405);
  RawClient odd(server.port);
  odd.send("BREW /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(odd.reply().status, 405);
}

TEST(Server, ChatCompletion) {
  TestServer server;
  RawClient client(server.port);
  const Json body = client.post("/v1/chat/completions", kChat).json();
  EXPECT_EQ(body["choices"][0]["message"]["content"], alphabet(18, 5));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 18);
  EXPECT_EQ(body["usage"]["completion_tokens"], 5);
  EXPECT_EQ(body["model"], "fake");
  EXPECT_TRUE(server.quiet());
}

TEST(Server, ChatStream) {
  TestServer server;
  RawClient client(server.port);
  Json request = Json::parse(kChat);
  request["stream"] = true;
  request["stream_options"] = {{"include_usage", true}};
  request["n"] = 3;
  const Reply reply = client.post("/v1/chat/completions", request.dump());
  EXPECT_THAT(reply.field("Content-Type"), HasSubstr("text/event-stream"));
  auto events = reply.events();
  ASSERT_GT(events.size(), 3u);
  EXPECT_EQ(events.back(), "[DONE]");
  const Json usage = Json::parse(events[events.size() - 2]);
  EXPECT_EQ(usage["usage"]["completion_tokens"], 15);
  EXPECT_EQ(usage["choices"], Json::array());
  std::map<int, std::string> texts, ends;
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    const Json choice = Json::parse(events[i])["choices"][0];
    EXPECT_EQ(Json::parse(events[i])["usage"], nullptr);
    const int index = choice["index"];
    EXPECT_EQ(choice["delta"].contains("role"), !texts.contains(index));
    texts[index] += choice["delta"].value("content", "");
    if (choice["finish_reason"].is_string()) ends[index] = choice["finish_reason"];
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(texts[i], alphabet(18, 5));
    EXPECT_EQ(ends[i], "length");
  }
  EXPECT_EQ(client.get("/health").status, 200);  // kept alive after a stream
}

TEST(Server, CompletionsOfManyKinds) {
  TestServer server;
  RawClient client(server.port);
  const auto choices = [&](const char* body) { return client.post("/v1/completions", body).json().at("choices"); };
  EXPECT_EQ(choices(R"({"prompt": "Eabc", "temperature": 0, "max_tokens": 50})")[0]["text"], alphabet(4, 6));
  EXPECT_EQ(choices(R"({"prompt": "Eabc", "temperature": 0, "max_tokens": 50})")[0]["finish_reason"], "stop");
  EXPECT_EQ(
      choices(R"({"prompt": "Eabc", "temperature": 0, "max_tokens": 50, "ignore_eos": true})")[0]["finish_reason"],
      "length");
  const Json lists = choices(R"({"prompt": [[97], [98, 98]], "temperature": 0, "max_tokens": 2, "n": 2})");
  ASSERT_EQ(lists.size(), 4u);
  EXPECT_EQ(lists[0]["text"], "bc");
  EXPECT_EQ(lists[3]["text"], "cd");
  EXPECT_EQ(choices(R"({"prompt": "ab", "temperature": 0, "max_tokens": 9, "stop": "fgh"})")[0]["text"], "cde");
  EXPECT_EQ(choices(R"({"prompt": "ab", "temperature": 0, "max_tokens": 9, "stop": ["fgh"]})")[0]["stop_reason"],
            "fgh");
  EXPECT_EQ(
      choices(R"({"prompt": "ab", "temperature": 0, "max_tokens": 9, "stop_token_ids": [101]})")[0]["stop_reason"],
      101);
  EXPECT_EQ(choices(R"({"prompt": "ab", "temperature": 0, "max_tokens": 1, "logit_bias": {"122": 100}})")[0]["text"],
            "z");
  EXPECT_EQ(choices(R"({"prompt": "Uab", "temperature": 0, "max_tokens": 5})")[0]["text"],
            "\xEF\xBF\xBD"
            "éé");
  EXPECT_EQ(choices(R"({"prompt": "ab", "temperature": 0, "max_tokens": 1, "echo": true})")[0]["text"], "abc");
}

// What lm-eval's local-completions sends.
TEST(Server, ScoresPrompts) {
  TestServer server;
  RawClient client(server.port);
  for (const int max_tokens : {0, 1}) {
    const Json choice = client
                            .post("/v1/completions", Json{{"model", "fake"},
                                                          {"prompt", {{97, 98, 99, 120}}},
                                                          {"max_tokens", max_tokens},
                                                          {"logprobs", 1},
                                                          {"echo", true},
                                                          {"temperature", 0},
                                                          {"seed", 1234}}
                                                         .dump())
                            .json()["choices"][0];
    const Json& logprobs = choice["logprobs"];
    EXPECT_EQ(choice["text"], max_tokens == 0 ? "abcx" : "abcxe");
    ASSERT_EQ(logprobs["tokens"].size(), 4u + max_tokens);
    EXPECT_EQ(logprobs["token_logprobs"][0], nullptr);
    EXPECT_GT(logprobs["token_logprobs"][1], -0.1);  // 'b' is what the model says after 'a'
    EXPECT_LT(logprobs["token_logprobs"][3], -9);    // 'x' is not
    EXPECT_EQ(logprobs["top_logprobs"][3].size(), 2u);
    EXPECT_GT(logprobs["top_logprobs"][3]["d"], -0.1);
    EXPECT_EQ(logprobs["text_offset"][3], 3);
  }
}

TEST(Server, ErrorsHaveOpenAisShape) {
  TestServer server;
  RawClient client(server.port);
  const Reply reply = client.post("/v1/completions", R"({"prompt": "a", "n": 1000000000000})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.json()["error"]["param"], "n");
  EXPECT_EQ(reply.json()["error"]["type"], "invalid_request_error");
  EXPECT_EQ(client.post("/v1/completions", "{").status, 400);
  EXPECT_EQ(client.post("/v1/completions", "").status, 400);
  const Reply model = client.post("/v1/chat/completions", R"({"model": "x", "messages": []})");
  EXPECT_EQ(model.status, 404);
  EXPECT_EQ(model.json()["error"]["code"], "model_not_found");
  EXPECT_EQ(client.get("/health").status, 200);
}

TEST(Server, TokenizeAndDetokenize) {
  TestServer server;
  RawClient client(server.port);
  EXPECT_EQ(client.post("/tokenize", R"({"prompt": "ab"})").json()["tokens"], Json::parse("[97, 98]"));
  EXPECT_EQ(client.post("/detokenize", R"({"tokens": [97, 98]})").json()["prompt"], "ab");
}

TEST(Server, ApiKeys) {
  TestServer server([](ServerConfig& c) { c.api_keys = {"secret", "other"}; });
  RawClient client(server.port);
  EXPECT_EQ(client.get("/health").status, 200);
  const Reply refused = client.get("/v1/models");
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.json()["error"]["code"], "invalid_api_key");
  EXPECT_EQ(client.get("/metrics").status, 401);
  EXPECT_EQ(client.get("/nowhere").status, 401);
  for (const char* wrong :
       {"Bearer secre", "Bearer secret1", "Bearer ", "secret", "Basic secret", "Bearer Secret", "Bearer  secret"})
    EXPECT_EQ(client.get("/v1/models", std::string("Authorization: ") + wrong + "\r\n").status, 401) << wrong;
  for (const char* right : {"Bearer secret", "bearer other", "BEARER secret"})
    EXPECT_EQ(client.get("/v1/models", std::string("Authorization: ") + right + "\r\n").status, 200) << right;
  // A body is not read for a stranger, and the refusal still reaches one who sends it.
  const Reply post = RawClient(server.port).post("/v1/completions", std::string(4 << 20, ' '));
  EXPECT_EQ(post.status, 401);
}

TEST(Server, PipelinedRequestsAreAnsweredInOrder) {
  TestServer server;
  RawClient client(server.port);
  client.send(RawClient::post_text("/v1/completions", R"({"prompt": "a", "temperature": 0, "max_tokens": 3})") +
              "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" +
              RawClient::post_text("/v1/completions",
                                   R"({"prompt": "ab", "temperature": 0, "max_tokens": 3, "stream": true})") +
              "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.reply().json()["choices"][0]["text"], "bcd");
  EXPECT_EQ(client.reply().json()["object"], "list");
  EXPECT_EQ(client.reply().events().size(), 4u);
  EXPECT_EQ(client.reply().status, 404);
  EXPECT_EQ(client.reply().json()["version"], TINYSERVE_VERSION);
  std::string many;
  for (int i = 0; i < 2000; ++i) many += "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
  std::thread sender([&] { client.send(many); });
  for (int i = 0; i < 2000; ++i) ASSERT_EQ(client.reply().status, 200) << i;
  sender.join();
}

TEST(Server, BodiesInChunksAndOnRequest) {
  TestServer server;
  RawClient client(server.port);
  const std::string body = R"({"prompt": "ab"})";
  client.send("POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (const char c : body) client.send("1\r\n" + std::string(1, c) + "\r\n");
  client.send("0\r\n\r\n");
  EXPECT_EQ(client.reply().json()["count"], 2);
  client.send("POST /tokenize HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 16\r\n\r\n");
  ASSERT_TRUE(client.receive_until("100 Continue\r\n\r\n"));
  client.send(body);
  EXPECT_EQ(client.reply().json()["count"], 2);
}

TEST(Server, OldClients) {
  TestServer server;
  RawClient once(server.port);
  once.send("GET /version HTTP/1.0\r\n\r\n");
  EXPECT_EQ(once.reply().field("Connection"), "close");
  EXPECT_TRUE(once.ended());
  RawClient kept(server.port);
  for (int i = 0; i < 2; ++i) {
    kept.send("GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_EQ(kept.reply().field("Connection"), "keep-alive");
  }
  RawClient stream(server.port);
  const std::string body = R"({"prompt": "ab", "temperature": 0, "max_tokens": 3, "stream": true})";
  stream.send("POST /v1/completions HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  const Reply reply = stream.reply();
  EXPECT_EQ(reply.events().size(), 4u) << reply.body;
  EXPECT_TRUE(stream.closed);
  RawClient half(server.port);  // says all, then ends its side: printf ... | nc -N
  half.send("GET /version HTTP/1.0\r\n\r\n");
  half.end_of_input();
  EXPECT_EQ(half.reply().status, 200);
}

TEST(Server, HangingUpFreesThePagesAtOnce) {
  TestServer server({}, 0.002);
  for (const bool streaming : {true, false})
    for (const bool hard : {true, false}) {
      Json request = Json::parse(kLong);
      request["stream"] = streaming;
      request["n"] = 4;
      RawClient client(server.port);
      client.send(RawClient::post_text("/v1/completions", request.dump()));
      if (streaming) {
        ASSERT_TRUE(client.receive_until("data: "));
      }
      ASSERT_TRUE(TestServer::eventually([&] { return server.engine->stats().running > 0; }));
      const uint64_t steps = server.engine->stats().steps;
      hard ? client.reset() : client.close();
      ASSERT_TRUE(server.quiet());
      EXPECT_LT(server.engine->stats().steps - steps, 200u);  // of 1500
    }
  RawClient client(server.port);
  EXPECT_THAT(client.get("/metrics").body,
              HasSubstr("tinyserve:request_success_total{finished_reason=\"abort\",model_name=\"fake\"} 4"));
}

TEST(Server, HangingUpBeforeTheEngineHasItLeavesNothing) {
  TestServer server;
  server.text.delay_s = 0.1;
  for (int i = 0; i < 8; ++i) {
    RawClient client(server.port);
    client.send(RawClient::post_text("/v1/completions", kLong));
    client.close();
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(800));
  server.text.delay_s = 0;
  EXPECT_TRUE(server.quiet());
  EXPECT_EQ(RawClient(server.port).post("/v1/chat/completions", kChat).status, 200);
}

TEST(Server, AFullQueueIsSaidSo) {
  TestServer server({}, 0.005, [](EngineConfig& c) { c.max_running = 1, c.max_queued = 2; });
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port));
    clients.back()->send(RawClient::post_text("/v1/completions", kLong));
    if (i == 0) {
      ASSERT_TRUE(clients.back()->receive_until("data: "));
    }
  }
  ASSERT_TRUE(TestServer::eventually([&] { return server.engine->stats().queued == 2; }));
  RawClient late(server.port);
  const Reply reply = late.post("/v1/completions", kLong);
  EXPECT_EQ(reply.status, 429);
  EXPECT_NE(reply.field("Retry-After"), "");
  EXPECT_EQ(reply.json()["error"]["code"], "queue_full");
  // Of several prompts none stays when one is refused.
  clients.pop_back();
  ASSERT_TRUE(TestServer::eventually([&] { return server.engine->stats().queued == 1; }));
  EXPECT_EQ(late.post("/v1/completions", R"({"prompt": ["a", "b", "c"], "max_tokens": 900})").status, 429);
  EXPECT_TRUE(TestServer::eventually([&] { return server.engine->stats().queued == 1; }));
  EXPECT_EQ(late.get("/health").status, 200);
}

TEST(Server, AFullWorkerQueueIsSaidSo) {
  TestServer server([](ServerConfig& c) { c.worker_threads = 1, c.max_worker_queue = 1; });
  server.text.delay_s = 0.3;
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port));
    clients.back()->send(RawClient::post_text("/tokenize", R"({"prompt": "a"})"));
  }
  EXPECT_EQ(RawClient(server.port).get("/health").status, 200);  // the I/O thread is free meanwhile
  int refused = 0;
  for (auto& client : clients) refused += client->reply().status == 429;
  EXPECT_GE(refused, 3);
  EXPECT_LE(refused, 5);
}

TEST(Server, ManyClientsAtOnce) {
  TestServer server;
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      RawClient client(server.port);
      for (int i = 0; i < 10; ++i) {
        const size_t length = 1 + static_cast<size_t>(t * 10 + i);
        const Json body = {
            {"prompt", std::string(length, 'x')}, {"temperature", 0}, {"max_tokens", 20}, {"stream", i % 2 == 0}};
        const Reply reply = client.post("/v1/completions", body.dump());
        std::string text;
        if (i % 2 == 0) {
          for (const std::string& event : reply.events())
            if (event != "[DONE]") text += Json::parse(event)["choices"][0]["text"].get<std::string>();
        } else {
          text = reply.json()["choices"][0]["text"];
        }
        good += text == alphabet(length, 20);
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 80);
  EXPECT_TRUE(server.quiet());
}

TEST(Server, ATakenPortIsSaidSo) {
  TestServer server;
  ServerConfig config = server.config;
  config.port = server.port;
  try {
    Server second(config, *server.backend, server.text, server.metrics);
    FAIL() << "bound twice";
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), HasSubstr("127.0.0.1:" + std::to_string(server.port)));
    EXPECT_THAT(e.what(), HasSubstr("another program has that port"));
  }
  config.host = "no.such.host.invalid";
  EXPECT_THROW(Server(config, *server.backend, server.text, server.metrics), InputError);
  config.host = "192.0.2.1";  // an address nobody has
  EXPECT_THROW(Server(config, *server.backend, server.text, server.metrics), InputError);
  config.model_names.clear();
  EXPECT_THROW(Server(config, *server.backend, server.text, server.metrics), InputError);
}

}  // namespace
}  // namespace tinyserve
