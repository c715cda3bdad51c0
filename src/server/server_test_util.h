#pragma once
// For tests: a text front whose tokens are bytes, a server around the real engine with a model that says what the test
// expects, and a client that sends exactly the bytes it is told to.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/error.h"
#include "base/thread_pool.h"
#include "engine/engine_thread.h"
#include "engine/fake_model.h"
#include "server/model_backend.h"
#include "server/server.h"

namespace tinyserve::testing {

constexpr int32_t kEos = 256;
constexpr int32_t kVocab = 260;

/// Tokens 0 to 255 are bytes, 256 is "<eos>". A conversation is "role:content\n" per message.
class ByteText final : public TextFront, public TokenText {
 public:
  ByteText() {
    for (int32_t i = 0; i < kVocab; ++i) pieces_.push_back(i < 256 ? std::string(1, static_cast<char>(i)) : "<eos>");
  }
  int32_t vocab_size() const override { return kVocab; }
  int32_t longest_token_bytes() const override { return 5; }
  std::vector<int32_t> encode(std::string_view text, bool) const override {
    if (delay_s > 0) std::this_thread::sleep_for(std::chrono::duration<double>(delay_s));
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::string text;
    for (const int32_t id : ids)
      if (id < 256 || !skip_special) text += pieces_.at(static_cast<size_t>(id));
    const std::string quoted = Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);  // valid UTF-8
    return Json::parse(quoted).get<std::string>();
  }
  std::string render_chat(const OrderedJson& messages, const OrderedJson* tools, bool add_generation_prompt,
                          const OrderedJson* extra) const override {
    std::string text;
    for (const auto& message : messages) {
      const auto role = message.at("role").get<std::string>();
      if (role == "refused") throw InputError("roles must be user or assistant");
      std::string content;
      if (message.contains("content") && message["content"].is_string()) content = message["content"];
      if (message.contains("content") && message["content"].is_array())
        for (const auto& part : message["content"]) content += part["text"].get<std::string>() + "\n";
      text += role + ":" + content + "\n";
    }
    if (tools) text += "tools:" + tools->dump() + "\n";
    if (extra) text += "extra:" + extra->dump() + "\n";
    if (add_generation_prompt) text += "assistant:";
    return text;
  }
  std::string token_bytes(int32_t id) const override { return pieces_.at(static_cast<size_t>(id)); }
  bool is_special(int32_t id) const override { return id >= 256; }

  std::atomic<double> delay_s{0};  ///< of every encode()

 private:
  std::vector<std::string> pieces_;
};

/// Says the alphabet by position: after n tokens comes 'a' + n % 26. A prompt that begins with 'E' ends with EOS at 10
/// tokens; one that begins with 'U' is answered with two-byte characters.
inline void alphabet_logits(std::span<const int32_t> tokens, std::span<float> logits) {
  for (size_t v = 0; v < logits.size(); ++v) logits[v] = -static_cast<float>(v) / 100;
  const size_t n = tokens.size();
  size_t next = 'a' + n % 26;
  if (tokens[0] == 'E' && n >= 10) next = kEos;
  if (tokens[0] == 'U') next = n % 2 == 0 ? 0xC3 : 0xA9;
  logits[next] = 10;
}

/// A server around the real engine.
class TestServer {
 public:
  explicit TestServer(const std::function<void(ServerConfig&)>& change = {}, double step_s = 0,
                      const std::function<void(EngineConfig&)>& change_engine = {}) {
    config.port = 0;
    config.model_names = {"fake", "alias/of"};
    config.handle_signals = false;
    config.announce = false;
    if (change) change(config);
    model.set_eos({kEos});
    if (step_s > 0)
      model.on_forward = [step_s](const Step&) { std::this_thread::sleep_for(std::chrono::duration<double>(step_s)); };
    engine_config.num_pages = 512;
    engine_config.page_size = 16;
    if (change_engine) change_engine(engine_config);
    engine = std::make_unique<EngineThread>(
        std::make_unique<Engine>(model, *ops, static_cast<const TokenText&>(text), engine_config, &metrics));
    backend = std::make_unique<ModelBackend>(*engine);
    server = std::make_unique<Server>(config, *backend, text, metrics);
    port = server->port();
    thread = std::thread([this] { server->run(); });
  }
  ~TestServer() {
    server->stop_now();
    thread.join();
    server.reset();
  }
  /// Waits for the engine to hold nothing; false after `timeout_s`.
  bool quiet(double timeout_s = 5) const {
    return eventually(
        [&] {
          const auto s = engine->stats();
          return s.running == 0 && s.waiting == 0 && s.pages_used == 0;
        },
        timeout_s);
  }
  static bool eventually(const std::function<bool()>& condition, double timeout_s = 5) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

  ThreadPool pool{1};
  std::unique_ptr<ops::Ops> ops = ops::make_ops("ref", pool);
  FakeModel model{kVocab, 2048, alphabet_logits};
  ByteText text;
  ServerMetrics metrics{"fake"};
  ServerConfig config;
  EngineConfig engine_config;
  std::unique_ptr<EngineThread> engine;
  std::unique_ptr<ModelBackend> backend;
  std::unique_ptr<Server> server;
  uint16_t port = 0;
  std::thread thread;
};

struct Reply {
  int status = 0;  ///< 0: no complete answer came
  std::string head;
  std::string body;
  Json json() const { return Json::parse(body); }
  std::string field(std::string name) const {
    name.insert(0, "\r\n").append(": ");
    const size_t at = head.find(name);
    return at == std::string::npos ? "" : head.substr(at + name.size(), head.find("\r\n", at + 2) - at - name.size());
  }
  /// The data of every event.
  std::vector<std::string> events() const {
    std::vector<std::string> list;
    for (size_t at = 0; (at = body.find("data: ", at)) != std::string::npos;) {
      const size_t end = body.find("\n\n", at);
      list.push_back(body.substr(at + 6, end - at - 6));
      at = end;
    }
    return list;
  }
};

class RawClient {
 public:
  explicit RawClient(uint16_t port, int receive_buffer = 0) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    const int one = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  RawClient(const RawClient&) = delete;
  ~RawClient() { close(); }
  bool connected() const { return connected_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  /// Closes with a reset instead of an orderly end.
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }
  void end_of_input() { ::shutdown(fd_, SHUT_WR); }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  /// Adds what arrives within timeout_s to buffer; false at the end of the stream or when nothing came.
  bool receive(double timeout_s = 10) {
    pollfd p{fd_, POLLIN, 0};
    if (::poll(&p, 1, static_cast<int>(timeout_s * 1000)) <= 0) return false;
    char chunk[16384];
    const ssize_t n = ::recv(fd_, chunk, sizeof chunk, 0);
    if (n <= 0) {
      closed = true;
      return false;
    }
    buffer.append(chunk, static_cast<size_t>(n));
    return true;
  }
  bool receive_until(std::string_view text) {
    while (buffer.find(text) == std::string::npos)
      if (!receive()) return false;
    return true;
  }
  /// True when the server ends the connection within timeout_s.
  bool ended(double timeout_s = 10) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
    while (!closed && std::chrono::steady_clock::now() < end) receive(0.05);
    return closed;
  }
  /// The next answer on this connection.
  Reply reply(bool head_only = false) {
    Reply r;
    if (!receive_until("\r\n\r\n")) return r;
    const size_t end = buffer.find("\r\n\r\n") + 4;
    r.head = buffer.substr(0, end);
    buffer.erase(0, end);
    const int status = std::stoi(r.head.substr(9, 3));
    if (status == 100) return reply(head_only);
    if (r.field("Transfer-Encoding") == "chunked") {
      while (true) {
        if (!receive_until("\r\n")) return r;
        const size_t line = buffer.find("\r\n");
        const size_t size = std::stoul(buffer.substr(0, line), nullptr, 16);
        while (buffer.size() < line + 2 + size + 2)
          if (!receive()) return r;
        r.body += buffer.substr(line + 2, size);
        buffer.erase(0, line + 2 + size + 2);
        if (size == 0) break;
      }
    } else if (const std::string length = r.field("Content-Length"); !length.empty() && !head_only) {
      while (buffer.size() < std::stoul(length))
        if (!receive()) return r;
      r.body = buffer.substr(0, std::stoul(length));
      buffer.erase(0, r.body.size());
    } else if (length.empty() && status == 200 && !head_only) {
      while (receive()) {
      }
      r.body = std::exchange(buffer, "");
    }
    r.status = status;
    return r;
  }
  static std::string post_text(std::string_view path, std::string_view body, std::string_view fields = "") {
    return "POST " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n" + std::string(fields) +
           "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           std::string(body);
  }
  Reply post(std::string_view path, std::string_view body, std::string_view fields = "") {
    send(post_text(path, body, fields));
    return reply();
  }
  Reply get(std::string_view path, std::string_view fields = "") {
    send("GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n" + std::string(fields) + "\r\n");
    return reply();
  }

  std::string buffer;
  bool closed = false;

 private:
  int fd_;
  bool connected_ = false;
};

}  // namespace tinyserve::testing
