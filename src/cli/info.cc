#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "cli/flags.h"
#include "cli/model_runtime.h"
#include "cli/units.h"
#include "engine/memory_plan.h"

namespace tinyserve::cli {
namespace {

struct InfoFlags {
  ModelFlags model;
  EngineConfig engine;
  bool json = false;
};

/// 0 when there is none.
int64_t file_bytes(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

Json collect(ModelRuntime& runtime, const MemoryPlan& plan, const EngineConfig& engine) {
  const ModelConfig& c = runtime.model().config();
  return {{"version", TINYSERVE_VERSION},
          {"model",
           {{"folder", runtime.folder().string()},
            {"architecture", c.architecture},
            {"family", c.family},
            {"parameters", c.num_parameters},
            {"vocab_size", c.vocab_size},
            {"hidden_size", c.hidden_size},
            {"intermediate_size", c.intermediate_size},
            {"layers", c.num_layers},
            {"heads", c.num_heads},
            {"kv_heads", c.num_kv_heads},
            {"head_dim", c.head_dim},
            {"max_positions", c.max_positions}}},
          {"precision", runtime.precision()},
          {"backend", std::string(runtime.ops().name())},
          {"backend_description", runtime.ops().description()},
          {"threads", runtime.pool().num_threads()},
          {"load_seconds", runtime.load_seconds()},
          {"memory",
           {{"weight_bytes", plan.weight_bytes},
            {"kv_token_bytes", plan.kv_token_bytes},
            {"kv_page_bytes", plan.kv_page_bytes},
            {"page_size", engine.page_size},
            {"num_pages", plan.num_pages},
            {"kv_bytes", plan.kv_bytes},
            {"kv_tokens", plan.kv_tokens},
            {"max_context", plan.max_context},
            {"available_bytes", plan.available_bytes},
            {"host_cache_bytes", engine.tiers.host_bytes},
            {"host_cache_pages", engine.tiers.host_bytes / plan.kv_page_bytes},
            {"disk_cache", engine.tiers.disk_path},
            {"disk_cache_max_bytes", engine.tiers.disk_path.empty() ? 0 : engine.tiers.disk_bytes},
            {"disk_cache_file_bytes", file_bytes(engine.tiers.disk_path)}}}};
}

void print(ModelRuntime& runtime, const MemoryPlan& plan, const EngineConfig& engine) {
  const ModelConfig& c = runtime.model().config();
  fmt::print("model        {}\n", runtime.folder().string());
  fmt::print("             {} ({}), {} parameters, made for {} tokens of context\n", c.architecture, c.family,
             format_count(c.num_parameters), c.max_positions);
  fmt::print("             {} layers, width {} ({} inside), {} query heads over {} K/V heads of {}, vocabulary {}\n", c.num_layers,
             c.hidden_size, c.intermediate_size, c.num_heads, c.num_kv_heads, c.head_dim, c.vocab_size);
  fmt::print("precision    {}\n", runtime.precision());
  fmt::print("backend      {}: {}\n", runtime.ops().name(), runtime.ops().description());
  fmt::print("threads      {}\n", runtime.pool().num_threads());
  fmt::print("loaded in    {:.2f} s\n", runtime.load_seconds());
  fmt::print("memory       {} available\n", format_bytes(plan.available_bytes));
  fmt::print("  weights    {}\n", format_bytes(plan.weight_bytes));
  fmt::print("  K/V        {} per token over all layers, {} per page of {} tokens\n", format_bytes(plan.kv_token_bytes),
             format_bytes(plan.kv_page_bytes), engine.page_size);
  fmt::print("  pool       {} in {} pages: room for {} tokens\n", format_bytes(plan.kv_bytes), plan.num_pages, plan.kv_tokens);
  if (engine.tiers.host_bytes > 0)
    fmt::print("  host cache {}: room for {} more pages, {} tokens\n", format_bytes(engine.tiers.host_bytes),
               engine.tiers.host_bytes / plan.kv_page_bytes, engine.tiers.host_bytes / plan.kv_page_bytes * engine.page_size);
  if (!engine.tiers.disk_path.empty())
    fmt::print("  disk cache {}: up to {}, some {} pages; the file has {} now\n", engine.tiers.disk_path,
               format_bytes(engine.tiers.disk_bytes), engine.tiers.disk_bytes / plan.kv_page_bytes,
               format_bytes(file_bytes(engine.tiers.disk_path)));
  fmt::print("  a request  may have up to {} tokens, prompt and answer together\n", plan.max_context);
}

}  // namespace

void add_info(CLI::App& root, Action& action) {
  const auto flags = std::make_shared<InfoFlags>();
  CLI::App& app = add_command(root, "info", "Show a model, the machine and how memory would be divided", action, [flags] {
    ModelRuntime runtime(flags->model);
    const MemoryPlan plan = plan_memory(runtime.model().kv_shape(), runtime.model().config().max_positions,
                                        static_cast<int64_t>(runtime.model().weight_bytes()), flags->engine, available_memory());
    if (flags->json) {
      fmt::print("{}\n", collect(runtime, plan, flags->engine).dump(2));
    } else {
      print(runtime, plan, flags->engine);
    }
    return 0;
  });
  FlagGroup output(app, "Output");
  output.flag("--json", flags->json, "Print JSON");
  add_log_flag(output);
  FlagGroup model(app, "Model");
  add_model_flags(model, flags->model);
  FlagGroup memory(app, "Memory");
  add_memory_flags(memory, flags->engine);
}

}  // namespace tinyserve::cli
