#pragma once
// The routes: from HTTP requests to the engine and back.

#include <cstdint>
#include <memory>

#include "server/backend.h"
#include "server/config.h"
#include "server/http.h"
#include "server/metrics.h"

namespace tinyserve {

class Api : public HttpHandler {
 public:
  /// All outlive this.
  Api(const ServerConfig& config, Backend& backend, const TextFront& text, ServerMetrics& metrics);
  ~Api() override;

  /// What the API asks of the server below it; before the first request.
  struct Server {
    std::shared_ptr<IoPoster> poster;
    std::function<bool()> draining;
    std::function<int64_t()> connections;
  };
  void attach(Server server);

  std::optional<HttpResponse> refuse(const HttpRequest& head) override;
  void handle(HttpRequest&& request, std::shared_ptr<HttpExchange> exchange) override;
  HttpResponse error(int status, std::string_view message) override;
  void answered(std::string_view path, int status) override;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace tinyserve
