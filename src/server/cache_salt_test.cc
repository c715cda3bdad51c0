// CVE-2025-46570: by timing a prompt, one client could learn whether another had sent it. Here what tells is looked at
// itself: how many tokens were found in the cache and how many the model computed.
#include "server/cache_salt.h"

#include <gmock/gmock.h>

#include <set>

#include "server/server_test_util.h"

namespace tinyserve {
namespace {

using ::testing::HasSubstr;
using testing::RawClient;
using testing::Reply;
using testing::TestServer;

TEST(CacheSalt, DifferentPairsHaveDifferentSalts) {
  std::set<std::string> seen;
  for (const char* key : {"", "a", "ab", "abc", "1:a", "2:ab"})
    for (const char* salt : {"", "a", "b", "bc", "1:a", "1:", "2:ab"})
      EXPECT_TRUE(seen.insert(cache_salt(key, salt)).second);
  EXPECT_EQ(cache_salt("", ""), "");
}

class Cve2025_46570 : public ::testing::Test {
 protected:
  void start(bool share = false) {
    server = std::make_unique<TestServer>([&](ServerConfig& c) {
      c.api_keys = {"alice", "bob"};
      c.share_cache_between_keys = share;
    });
  }
  struct Seen {
    int64_t cached, computed;
    bool operator==(const Seen&) const = default;
  };
  /// What a request tells of the cache: tokens its answer says were found, and tokens the model was given.
  Seen ask(const std::string& key, const std::string& salt = "", const std::string& path = "/v1/completions") {
    Json body = {{"temperature", 0}, {"max_tokens", 1}};
    if (path == "/v1/completions")
      body["prompt"] = secret;
    else
      body["messages"] = {{{"role", "user"}, {"content", secret}}};
    if (!salt.empty()) body["cache_salt"] = salt;
    EXPECT_TRUE(server->quiet());
    const int64_t rows = server->model.num_rows;
    const Reply reply = RawClient(server->port).post(path, body.dump(), "Authorization: Bearer " + key + "\r\n");
    EXPECT_EQ(reply.status, 200) << reply.body;
    EXPECT_TRUE(server->quiet());
    return {reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"], server->model.num_rows - rows};
  }
  const std::string secret = std::string(200, 'q') + "what only alice asks";
  std::unique_ptr<TestServer> server;
};

TEST_F(Cve2025_46570, AnApiKeyDoesNotFindAnothersPrompts) {
  start();
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    const Seen cold = ask("alice", "", path);
    EXPECT_EQ(cold.cached, 0);
    const Seen warm = ask("alice", "", path);
    EXPECT_GT(warm.cached, 190);
    EXPECT_LT(warm.computed, cold.computed / 4);
    EXPECT_EQ(ask("bob", "", path), cold) << "bob's prompt is as new as if nobody had sent it";
    EXPECT_GT(ask("bob", "", path).cached, 190) << "and now it is his own";
  }
}

TEST_F(Cve2025_46570, ASaltDoesNotFindAnothersPrompts) {
  start();
  const Seen cold = ask("alice", "one");
  EXPECT_EQ(ask("alice", "two"), cold);
  EXPECT_EQ(ask("alice"), cold);
  EXPECT_EQ(ask("bob", "one"), cold) << "a salt is of its key, even when another guesses it";
  EXPECT_GT(ask("alice", "one").cached, 190);
}

TEST_F(Cve2025_46570, KeysShareWhenTheOperatorSaysSo) {
  start(true);
  const Seen cold = ask("alice");
  EXPECT_GT(ask("bob").cached, 190);
  EXPECT_EQ(ask("bob", "mine"), cold);
  EXPECT_GT(ask("alice", "mine").cached, 190);
}

TEST(CacheSalt, MustBeATextWithSomethingInIt) {
  TestServer server;
  RawClient client(server.port);
  for (const char* salt : {"\"\"", "5", "[]"}) {
    const Reply reply =
        client.post("/v1/completions", std::string(R"({"prompt": "a", "max_tokens": 1, "cache_salt": )") + salt + "}");
    EXPECT_EQ(reply.status, 400);
    EXPECT_THAT(reply.body, HasSubstr("cache_salt"));
  }
  EXPECT_EQ(client.post("/v1/completions", R"({"prompt": "a", "max_tokens": 1, "cache_salt": null})").status, 200);
}

}  // namespace
}  // namespace tinyserve
