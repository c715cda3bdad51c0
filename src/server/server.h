#pragma once
// The OpenAI-compatible HTTP server around an engine.
//
//   ServerMetrics metrics(name);                         // first: it is the engine's observer
//   EngineThread engine(std::make_unique<Engine>(model, ops, tokenizer, engine_config, &metrics));
//   ModelBackend backend(engine);
//   ModelText text(tokenizer, chat_template_or_null);
//   Server server(config, backend, text, metrics);       // binds
//   server.run();                                        // until SIGTERM, SIGINT or stop()

#include <cstdint>
#include <memory>
#include <string>

#include "server/backend.h"
#include "server/config.h"
#include "server/metrics.h"

namespace tinyserve {

class Server {
 public:
  /// Binds and listens; throws InputError that says what to do when the address or the port cannot be had. `backend`,
  /// `text` and `metrics` outlive this; no request of this server is left in the backend when run() has returned and
  /// the cancellations were carried out.
  Server(const ServerConfig& config, Backend& backend, const TextFront& text, ServerMetrics& metrics);
  ~Server();

  uint16_t port() const;    ///< the one taken when config.port was 0
  std::string url() const;  ///< e.g. "http://127.0.0.1:8080"
  /// Serves on the calling thread (I/O; workers have their own) until stopped.
  void run();
  /// Stops accepting, answers new requests with 503, lets run() return when running ones have ended or drain_timeout_s
  /// passed. Any thread.
  void stop();
  /// Lets run() return at once. Any thread.
  void stop_now();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tinyserve
