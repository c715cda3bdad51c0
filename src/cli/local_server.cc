#include "cli/local_server.h"

#include <thread>

#include "cli/model_runtime.h"
#include "cli/serving.h"
#include "server/server.h"

namespace tinyserve::cli {
namespace {

ServerConfig local_config(const std::string& api_key) {
  ServerConfig config;
  config.port = 0;
  config.handle_signals = false;  // Ctrl-C ends the benchmark
  config.announce = false;
  if (!api_key.empty()) config.api_keys = {api_key};
  return config;
}

}  // namespace

struct LocalServer::State {
  State(ModelRuntime& runtime, const EngineConfig& config, const std::string& api_key)
      : serving(runtime, config, local_config(api_key)), thread([this] { serving.server().run(); }) {}
  ~State() {
    serving.server().stop_now();
    thread.join();
  }

  Serving serving;
  std::thread thread;
};

LocalServer::LocalServer(ModelRuntime& runtime, const EngineConfig& config, const std::string& api_key)
    : state_(std::make_unique<State>(runtime, config, api_key)) {}
LocalServer::~LocalServer() = default;

std::string LocalServer::url() const { return state_->serving.server().url(); }

}  // namespace tinyserve::cli
