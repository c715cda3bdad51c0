#pragma once
// HTTP without the protocol on top: what a handler is given and how it answers. http_server.h moves the bytes.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tinyserve {

struct HttpRequest {
  std::string method;         ///< "GET"
  std::string path;           ///< without query, as sent (percent escapes kept)
  std::string authorization;  ///< value of that field, empty when absent
  bool has_body = false;      ///< a body was announced
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};  ///< further ones
};

/// Why an exchange ended before its answer did.
enum class Gone {
  kClient,    ///< the client hung up, or did not take what it was sent: nothing can be said any more
  kTimeout,   ///< request_timeout_s passed: an error may still be sent
  kShutdown,  ///< the server stops and does not wait longer: an error may still be sent
};

/// One request waiting for its answer: either respond(), or start_stream(), send()... and end_stream(). All members are
/// called on the I/O thread; after the end (or Gone::kClient) they do nothing.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual void respond(HttpResponse response) = 0;
  virtual void start_stream(std::string_view content_type) = 0;
  virtual bool streaming() const = 0;
  virtual void send(std::string_view bytes) = 0;
  /// `clean`: all was said; otherwise the connection is closed after what was sent.
  virtual void end_stream(bool clean) = 0;
  /// Called at most once, on the I/O thread.
  virtual void on_gone(std::function<void(Gone)> callback) = 0;
};

/// Runs functions on the I/O thread, from any thread; drops them once the server is gone.
class IoPoster {
 public:
  virtual ~IoPoster() = default;
  virtual void post(std::function<void()> fn) = 0;
};

/// What stands above the bytes. All members are called on the I/O thread and must not block.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  /// With the header read and the body not: an answer refuses the request before its body is taken.
  virtual std::optional<HttpResponse> refuse(const HttpRequest& head) = 0;
  virtual void handle(HttpRequest&& request, std::shared_ptr<HttpExchange> exchange) = 0;
  /// The answer to what could not be read as a request, or not be taken.
  virtual HttpResponse error(int status, std::string_view message) = 0;
  /// Every answer, for counting. `path` is empty when there was no readable request.
  virtual void answered(std::string_view path, int status) = 0;
};

}  // namespace tinyserve
