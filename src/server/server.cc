#include "server/server.h"

#include <fmt/format.h>

#include <cstdio>

#include "base/error.h"
#include "server/api.h"
#include "server/http_server.h"
#include "server/response_json.h"

namespace tinyserve {
namespace {

const ServerConfig& checked(const ServerConfig& config) {
  if (config.model_names.empty()) throw InputError("the server needs at least one model name");
  for (const std::string& key : config.api_keys)
    if (key.empty()) throw InputError("an API key must not be empty");
  return config;
}

}  // namespace

struct Server::State {
  State(const ServerConfig& config_in, Backend& backend, const TextFront& text, ServerMetrics& metrics)
      : config(checked(config_in)), api(config, backend, text, metrics), http(config, api) {
    api.attach({http.poster(), [this] { return http.draining(); }, [this] { return http.connections(); }});
  }

  const ServerConfig config;
  Api api;
  HttpServer http;
};

Server::Server(const ServerConfig& config, Backend& backend, const TextFront& text, ServerMetrics& metrics)
    : state_(std::make_unique<State>(config, backend, text, metrics)) {}

Server::~Server() = default;

uint16_t Server::port() const { return state_->http.port(); }
std::string Server::url() const { return state_->http.url(); }

void Server::run() {
  const ServerConfig& config = state_->config;
  if (config.announce) {
    const std::string& name = config.model_names.front();
    const std::string key = config.api_keys.empty() ? "" : " -H \"Authorization: Bearer $KEY\"";
    fmt::print(
        "Serving {} at {}/v1; try: curl {}/v1/chat/completions{} -d '{{\"model\":{},\"messages\":[{{\"role\":\"user\","
        "\"content\":\"Tell me a story.\"}}],\"max_tokens\":100}}'\n",
        name, url(), url(), key, json_string(name));
    std::fflush(stdout);  // whoever started this may be waiting for the line in a pipe
  }
  state_->http.run();
}

void Server::stop() { state_->http.stop(); }
void Server::stop_now() { state_->http.stop_now(); }

}  // namespace tinyserve
