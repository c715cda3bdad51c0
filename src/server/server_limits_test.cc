// What the server does to clients that are slow, greedy or hostile, and how it ends.
#include <gmock/gmock.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <random>

#include "server/server_test_util.h"

namespace tinyserve {
namespace {

using ::testing::HasSubstr;
using testing::RawClient;
using testing::Reply;
using testing::TestServer;
using Clock = std::chrono::steady_clock;

constexpr const char* kLong = R"({"prompt": "hi", "temperature": 0, "max_tokens": 1500, "stream": true})";

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

TEST(ServerLimits, SlowHeadersAndBodiesEnd) {
  TestServer server([](ServerConfig& c) { c.header_timeout_s = 0.3, c.body_timeout_s = 0.3, c.idle_timeout_s = 0.3; });
  const auto begin = Clock::now();
  RawClient silent(server.port), dripping(server.port), body(server.port), idle(server.port);
  dripping.send("GET /health HTTP/1.1\r\n");
  body.send("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_EQ(idle.get("/health").status, 200);
  for (int i = 0; i < 10; ++i) {  // a byte now and then does not help
    dripping.send("a");
    body.send(" ");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_EQ(dripping.reply().status, 408);
  EXPECT_EQ(body.reply().status, 408);
  EXPECT_TRUE(silent.ended());
  EXPECT_TRUE(idle.ended());
  EXPECT_LT(seconds_since(begin), 5);
  EXPECT_EQ(RawClient(server.port).get("/health").status, 200);
}

TEST(ServerLimits, LargeHeadersAndBodiesAreRefused) {
  TestServer server([](ServerConfig& c) { c.max_body_bytes = 1000, c.max_header_bytes = 1000; });
  RawClient header(server.port);
  header.send("GET /health HTTP/1.1\r\nHost: x\r\nX: " + std::string(100000, 'x'));
  const Reply too_long = header.reply();
  EXPECT_EQ(too_long.status, 431);
  EXPECT_EQ(too_long.json()["error"]["code"], "request_too_large");
  const Reply big = RawClient(server.port).post("/tokenize", std::string(5 << 20, ' '));  // sent whole before reading
  EXPECT_EQ(big.status, 413);
  EXPECT_EQ(RawClient(server.port).post("/tokenize", R"({"prompt": ")" + std::string(900, 'a') + "\"}").status, 200);
}

TEST(ServerLimits, AllBodiesTogetherAreBounded) {
  TestServer server([](ServerConfig& c) { c.max_total_body_bytes = 100000; });
  std::vector<std::unique_ptr<RawClient>> clients;
  int refused = 0;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port));
    clients.back()->send("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n" +
                         std::string(39000, ' '));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  for (auto& client : clients)
    if (client->receive(0.1)) refused += client->reply().status == 503;
  EXPECT_EQ(refused, 2);  // two fit
  clients.clear();
  ASSERT_TRUE(TestServer::eventually([&] {
    return RawClient(server.port).post("/tokenize", R"({"prompt": ")" + std::string(90000, 'a') + "\"}").status != 503;
  }));
}

TEST(ServerLimits, MoreConnectionsAreTurnedAway) {
  TestServer server([](ServerConfig& c) { c.max_connections = 5; });
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port));
    ASSERT_EQ(clients.back()->get("/health").status, 200);
  }
  RawClient extra(server.port);
  const Reply reply = extra.reply();
  EXPECT_EQ(reply.status, 503);
  EXPECT_TRUE(extra.ended());
  EXPECT_EQ(clients[0]->get("/health").status, 200);
  clients.pop_back();
  ASSERT_TRUE(TestServer::eventually([&] { return RawClient(server.port).get("/health").status == 200; }));
}

TEST(ServerLimits, AClientThatDoesNotReadItsStreamIsCutOff) {
  TestServer server([](ServerConfig& c) { c.max_stream_buffer_bytes = 20000; });
  RawClient client(server.port, 4096);
  Json request = Json::parse(kLong);
  request["n"] = 64;  // megabytes of events, more than the kernel's buffers take
  request["logprobs"] = 20;
  client.send(RawClient::post_text("/v1/completions", request.dump()));
  ASSERT_TRUE(TestServer::eventually([&] { return server.engine->stats().running > 0; }));
  EXPECT_TRUE(server.quiet(20));
  EXPECT_LT(server.engine->stats().generated_tokens, 64u * 1500u);
}

TEST(ServerLimits, AClientThatTakesNothingIsCutOffInTime) {
  TestServer server([](ServerConfig& c) { c.write_timeout_s = 0.3, c.max_stream_buffer_bytes = size_t{1} << 30; });
  RawClient client(server.port, 4096);
  client.send(RawClient::post_text("/v1/completions",
                                   R"({"prompt": "hi", "max_tokens": 1500, "n": 64, "logprobs": 20, "stream": true})"));
  ASSERT_TRUE(TestServer::eventually([&] { return server.engine->stats().running > 0; }));
  EXPECT_TRUE(server.quiet(20));
  EXPECT_LT(server.engine->stats().generated_tokens, 64u * 1500u);
}

TEST(ServerLimits, RequestsMayTakeOnlySoLong) {
  TestServer server([](ServerConfig& c) { c.request_timeout_s = 0.3; }, 0.005);
  RawClient whole(server.port);
  const Reply reply = whole.post("/v1/completions", R"({"prompt": "hi", "max_tokens": 1500})");
  EXPECT_EQ(reply.status, 504);
  EXPECT_EQ(reply.json()["error"]["code"], "timeout");
  RawClient stream(server.port);
  stream.send(RawClient::post_text("/v1/completions", kLong));
  EXPECT_TRUE(stream.ended());
  EXPECT_THAT(stream.buffer, HasSubstr("\"code\":\"timeout\""));
  EXPECT_THAT(stream.buffer, ::testing::Not(HasSubstr("[DONE]")));
  EXPECT_TRUE(server.quiet());
}

TEST(ServerLimits, GarbageIsAnsweredOrDropped) {
  TestServer server;
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    RawClient client(server.port);
    std::string bytes(random() % 2000 + 1, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    if (i % 3 == 0) bytes.insert(0, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n");
    if (i % 3 == 1) bytes.insert(0, "GET /health HTTP/1.1\r\n");
    client.send(bytes);
    client.end_of_input();
    ASSERT_TRUE(client.ended()) << i;
  }
  EXPECT_EQ(RawClient(server.port).get("/health").status, 200);
  EXPECT_TRUE(server.quiet());
}

TEST(ServerEnd, DrainsRunningRequests) {
  TestServer server({}, 0.002);
  RawClient idle(server.port), busy(server.port);
  ASSERT_EQ(idle.get("/health").status, 200);
  busy.send(RawClient::post_text("/v1/completions",
                                 R"({"prompt": "hi", "temperature": 0, "max_tokens": 300, "stream": true})"));
  ASSERT_TRUE(busy.receive_until("data: "));
  server.server->stop();
  ASSERT_TRUE(TestServer::eventually([&] { return !RawClient(server.port).connected(); }));
  const Reply refused = idle.post("/v1/completions", R"({"prompt": "hi"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.json()["error"]["code"], "shutting_down");
  EXPECT_TRUE(idle.ended());
  EXPECT_EQ(busy.reply().events().back(), "[DONE]");
  server.thread.join();
  server.thread = std::thread([] {});
}

TEST(ServerEnd, CutsWhatDoesNotEndInTime) {
  TestServer server([](ServerConfig& c) { c.drain_timeout_s = 0.2; }, 0.005);
  RawClient stream(server.port), whole(server.port);
  stream.send(RawClient::post_text("/v1/completions", kLong));
  whole.send(RawClient::post_text("/v1/completions", R"({"prompt": "hi", "max_tokens": 1500})"));
  ASSERT_TRUE(stream.receive_until("data: "));
  server.server->stop();
  EXPECT_EQ(whole.reply().status, 503);
  EXPECT_TRUE(stream.ended());
  EXPECT_THAT(stream.buffer, HasSubstr("shutting down"));
  server.thread.join();
  server.thread = std::thread([] {});
  EXPECT_TRUE(server.quiet());
}

TEST(ServerEnd, StopNowDoesNotWait) {
  TestServer server({}, 0.005);
  RawClient client(server.port);
  client.send(RawClient::post_text("/v1/completions", kLong));
  ASSERT_TRUE(client.receive_until("data: "));
  const auto begin = Clock::now();
  server.server->stop();
  server.server->stop_now();
  server.thread.join();
  server.thread = std::thread([] {});
  EXPECT_LT(seconds_since(begin), 2);
  EXPECT_TRUE(client.ended());
  EXPECT_TRUE(server.quiet());
}

TEST(ServerEnd, SignalsDrainAndThenStop) {
  TestServer server([](ServerConfig& c) { c.handle_signals = true; }, 0.005);
  RawClient client(server.port);
  client.send(RawClient::post_text("/v1/completions", kLong));
  ASSERT_TRUE(client.receive_until("data: "));
  std::raise(SIGTERM);
  ASSERT_TRUE(TestServer::eventually([&] { return !RawClient(server.port).connected(); }));
  client.buffer.clear();
  ASSERT_TRUE(client.receive_until("data: "));  // still served
  std::raise(SIGTERM);
  server.thread.join();
  server.thread = std::thread([] {});
  EXPECT_TRUE(client.ended());
  EXPECT_TRUE(server.quiet());
}

}  // namespace
}  // namespace tinyserve
