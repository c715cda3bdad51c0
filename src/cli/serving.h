#pragma once
#include <memory>
#include <string>

#include "engine/engine.h"
#include "server/config.h"

namespace tinyserve {
class Server;
}

namespace tinyserve::cli {

class ModelRuntime;

/// Everything between a loaded model and a listening server, built in the order in which each part needs the others.
class Serving {
 public:
  /// `template_file`: see load_text_parts. config.model_names and config.default_sampling are filled from the model's
  /// folder where they are empty, config.selection from `engine`. Throws InputError.
  Serving(ModelRuntime& runtime, const EngineConfig& engine, ServerConfig config, const std::string& template_file = {});
  ~Serving();
  Server& server();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tinyserve::cli
