#include "cli/serving.h"

#include <utility>

#include "cli/default_sampling.h"
#include "cli/model_runtime.h"
#include "cli/text_parts.h"
#include "cli/selection_setup.h"
#include "engine/engine_thread.h"
#include "model/gguf/gguf_model.h"
#include "server/metrics.h"
#include "server/model_backend.h"
#include "server/recording_backend.h"
#include "server/server.h"

namespace tinyserve::cli {
namespace {

std::string folder_name(const std::filesystem::path& folder) {
  if (is_gguf(folder)) return folder.stem().string();
  std::error_code error;
  return std::filesystem::weakly_canonical(folder / "config.json", error).parent_path().filename().string();
}

ServerConfig complete(ServerConfig config, const ModelRuntime& runtime, const EngineConfig& engine) {
  if (config.model_names.empty()) config.model_names = {folder_name(runtime.folder())};
  config.default_sampling = read_default_sampling(runtime.folder());
  config.selection = engine.selection;
  return config;
}

}  // namespace

struct Serving::State {
  State(ModelRuntime& runtime, const EngineConfig& engine_config, ServerConfig c, const std::string& template_file)
      : config(complete(std::move(c), runtime, engine_config)),
        text_parts(load_text_parts(runtime.folder(), template_file)),
        metrics(config.model_names.front()),
        trace(config.record_trace.empty()
                  ? nullptr
                  : std::make_unique<replay::TraceWriter>(config.record_trace, engine_config.page_size)),
        engine(std::make_unique<Engine>(runtime.model(), runtime.ops(), *text_parts.tokenizer,
                                        engine_config_for(runtime, engine_config), &metrics)),
        backend(trace ? std::make_unique<RecordingBackend>(engine, *trace) : std::make_unique<ModelBackend>(engine)),
        text(*text_parts.tokenizer, &text_parts.chat_template),
        server(config, *backend, text, metrics) {}

  ServerConfig config;
  TextParts text_parts;
  ServerMetrics metrics;
  std::unique_ptr<replay::TraceWriter> trace;  // hears of what ends with the engine
  EngineThread engine;
  std::unique_ptr<ModelBackend> backend;
  ModelText text;
  Server server;
};

Serving::Serving(ModelRuntime& runtime, const EngineConfig& engine, ServerConfig config, const std::string& template_file)
    : state_(std::make_unique<State>(runtime, engine, std::move(config), template_file)) {}
Serving::~Serving() = default;

Server& Serving::server() { return state_->server; }

}  // namespace tinyserve::cli
