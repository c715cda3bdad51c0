#pragma once
#include <memory>
#include <string>

#include "engine/engine.h"

namespace tinyserve::cli {

class ModelRuntime;

/// A server of ours on a free loopback port, on threads of its own, for as long as it lives.
class LocalServer {
 public:
  LocalServer(ModelRuntime& runtime, const EngineConfig& config, const std::string& api_key);
  ~LocalServer();
  /// "http://127.0.0.1:PORT".
  std::string url() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tinyserve::cli
