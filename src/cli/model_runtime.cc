#include "cli/model_runtime.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <system_error>

#include "base/error.h"
#include "cli/flags.h"
#include "cli/selection_setup.h"
#include "cli/weights_digest.h"
#include "model/gguf/gguf_model.h"

namespace tinyserve::cli {
namespace {

constexpr const char* kBundled = "models/tiny-16m-32k";
constexpr int64_t kMaxCount = 1 << 24;

std::vector<std::string> backend_names() {
#ifdef TINYSERVE_CUDA
  return {"cpu", "ref", "cuda"};
#else
  return {"cpu", "ref"};
#endif
}

}  // namespace

void add_model_flags(FlagGroup& group, ModelFlags& flags) {
  group.text("--model", flags.model, "PATH", "Hugging Face folder (config.json, safetensors, tokenizer.json) or GGUF file",
             std::string("the bundled ") + kBundled)
      .choice("--dtype", {"bf16", "f32"}, "Precision of weights and K/V",
              [&](const std::string& v) { flags.options.dtype = v == "f32" ? DType::kF32 : DType::kBF16; })
      .choice("--weights", {"auto", "native", "int8"},
              "Weight matrices: what a GGUF file has quantised stays as it is (auto), all as --dtype says (native), or all "
              "quantised at load in groups of 32 (int8)",
              [&](const std::string& v) {
                flags.options.int8_weights = v == "int8";
                flags.options.keep_blocks = v == "auto";
              })
      .number("--threads", flags.threads, 0, 1024, "Threads that compute", "physical cores")
      .choice("--backend", backend_names(), "SIMD kernels, or the plain loops they are tested against",
              [&](const std::string& v) { flags.backend = v; })
      .toggle("--batch-invariant", flags.batch_invariant,
              "The same request gives the same greedy answer whatever else is in the batch");
}

void add_memory_flags(FlagGroup& group, EngineConfig& config) {
  group
      .bytes("--kv-memory", config.kv_bytes, 0, int64_t{1} << 50, "Memory for K/V pages",
             "a share of free memory, see `tinyserve info`")
      .number("--kv-pages", config.num_pages, 0, kMaxCount * 16, "Number of K/V pages, instead of --kv-memory",
              "as --kv-memory says")
      .number("--max-context", config.max_context, 0, kMaxCount, "Longest prompt + answer, in tokens", "the model's")
      .number("--max-running", config.max_running, 1, 4096, "Sequences computed together")
      .bytes("--host-cache", config.tiers.host_bytes, 0, int64_t{1} << 50,
             "Host memory for K/V pages that the pool gives up, so that they need not be computed again", "none")
      .text("--disk-cache", config.tiers.disk_path, "FILE",
            "File for K/V pages, below the host memory; found again after a restart, however the server ended", "none")
      .bytes("--disk-cache-size", config.tiers.disk_bytes, 1, int64_t{1} << 50, "Most the file may take")
      .bytes("--disk-write-rate", config.tiers.disk_write_rate, 0, int64_t{1} << 50,
             "Bytes a second of pages written to the file while the pool still has them, so that a restart finds them",
             "only what the pool and the host memory give up is written");
}

void add_engine_flags(FlagGroup& group, EngineConfig& config) {
  add_memory_flags(group, config);
  group
      .number("--max-step-tokens", config.max_step_tokens, 1, 65536,
              "Tokens of one step: decoding first, then chunks of prompts")
      .number("--max-prefill-with-decodes", config.max_prefill_with_decodes, 1, 65536,
              "Prompt tokens of a step that also decodes: small keeps answers flowing while a long prompt comes in, large brings "
              "its first token sooner")
      .choice("--prefix-cache", {"heat", "lru", "off"},
              "Keep K/V of prompts and answers for later prompts that begin alike; short of memory, give up what is least likely "
              "to be asked for again (heat) or was not asked for longest (lru)",
              [&config](const std::string& v) { config.kv.prefix.policy = parse_prefix_policy(v); })
      .bytes("--compaction-budget", config.kv.compaction.bytes_per_step, 0, int64_t{1} << 40,
             "K/V moved between two steps at most, so that sequences and free space are in fewer, longer runs; 0: nothing is",
             "64 MiB, and no more than half a percent of the time");
  add_selection_flags(group, config.selection);
}

void add_log_flag(FlagGroup& group) {
  group.choice("--log-level", {"info", "debug", "warn", "error", "off"}, "What goes to stderr",
               [](const std::string& v) { set_log_level(parse_log_level(v)); });
}

std::array<std::filesystem::path, 4> shipped_places(const std::filesystem::path& name) {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  return {
      program / name,            // unpacked beside the program
      program / "../.." / name,  // build/release/tinyserve of a clone
      program / "../share/tinyserve" / name,
      name,
  };
}

std::filesystem::path find_model_folder(const std::string& given) {
  namespace fs = std::filesystem;
  if (!given.empty()) {
    std::error_code error;
    if (is_gguf(given)) return given;
    if (fs::is_regular_file(given, error))
      throw InputError(fmt::format("--model {}: not a folder, and no GGUF file either", given));
    if (!fs::is_directory(given, error))
      throw InputError(fmt::format("--model {}: {}", given, fs::exists(given, error) ? "not a folder" : "no such folder"));
    if (!fs::exists(fs::path(given) / "config.json", error))
      throw InputError(fmt::format("--model {}: holds no config.json, so it is not a Hugging Face model folder", given));
    return given;
  }
  std::error_code error;
  std::string tried;
  for (const fs::path& place : shipped_places(kBundled)) {
    if (fs::exists(place / "config.json", error)) return fs::weakly_canonical(place, error);
    tried += "\n  " + place.lexically_normal().string();
  }
  throw InputError("the bundled model is in none of these places; name a folder with --model:" + tried);
}

ModelRuntime::ModelRuntime(const ModelFlags& flags)
    : options_(flags.options), batch_invariant_(flags.batch_invariant), folder_(find_model_folder(flags.model)), pool_(flags.threads) {
  const auto start = std::chrono::steady_clock::now();
  ops_ = ops::make_ops(flags.backend, pool_, {.batch_invariant = flags.batch_invariant});
  model_ = Model::load(folder_, *ops_, options_);
  load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

EngineConfig ModelRuntime::with_fingerprint(EngineConfig config) const {
  if (config.tiers.disk_path.empty()) return config;
  // The number of threads, which comes last, changes nothing that --batch-invariant promises.
  const std::string backend = ops_->description();
  config.tiers.fingerprint = fmt::format("{} {} {} batch-invariant {} tinyserve {}", weights_digest(folder_), precision(),
                                         batch_invariant_ ? backend.substr(0, backend.rfind(", ")) : backend, batch_invariant_,
                                         TINYSERVE_VERSION);
  return config;
}

std::string ModelRuntime::precision() const {
  const std::string dtype(dtype_name(options_.dtype));
  if (options_.int8_weights) return dtype + " with int8 weights";
  return model_->block_bytes() > 0 ? dtype + " with the file's quantised weights" : dtype;
}

}  // namespace tinyserve::cli
