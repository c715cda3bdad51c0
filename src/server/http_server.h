#pragma once
// HTTP/1.0 and 1.1 over TCP on one thread: connections, timeouts, back-pressure, draining. Requests of a connection are
// answered one after the other, in order.

#include <atomic>
#include <cstdint>
#include <memory>

#include "server/config.h"
#include "server/http.h"

namespace tinyserve {

class HttpServer {
 public:
  /// Binds and listens; throws InputError that says what is wrong with the address or the port. The handler outlives
  /// this.
  HttpServer(const ServerConfig& config, HttpHandler& handler);
  ~HttpServer();

  uint16_t port() const;
  /// The address in the form of a URL, without a path.
  std::string url() const;
  std::shared_ptr<IoPoster> poster() const;
  /// Open connections. Any thread.
  int64_t connections() const;
  /// No longer taking work. Any thread.
  bool draining() const;

  /// Serves on the calling thread until stopped.
  void run();
  /// Stops accepting; run() returns when running requests have ended or drain_timeout_s passed. Any thread.
  void stop();
  /// run() returns at once; running requests are cut. Any thread.
  void stop_now();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tinyserve
