#pragma once
// From flags to a loaded model: what every subcommand that runs one shares.

#include <array>
#include <filesystem>
#include <memory>
#include <string>

#include "base/log.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "model/model.h"

namespace tinyserve::cli {

class FlagGroup;

/// Values of the flags that choose and load a model.
struct ModelFlags {
  std::string model;  ///< folder or GGUF file; empty: the bundled model
  ModelOptions options;
  int32_t threads = 0;  ///< 0: physical cores
  std::string backend = "cpu";
  bool batch_invariant = true;
};

/// Declares them. Called with a group per heading by every subcommand, so the flags mean the same everywhere.
void add_model_flags(FlagGroup& group, ModelFlags& flags);
/// --kv-memory to --disk-write-rate: what decides how memory is divided, and what lies below it.
void add_memory_flags(FlagGroup& group, EngineConfig& config);
/// Those and how steps are made up.
void add_engine_flags(FlagGroup& group, EngineConfig& config);
/// --log-level, which takes effect while the command line is read.
void add_log_flag(FlagGroup& group);

/// Where what comes with the program may lie: beside it, in the repository it was built in, in an installation's share/
/// and in the current folder.
std::array<std::filesystem::path, 4> shipped_places(const std::filesystem::path& name);

/// The folder or GGUF file to load: `given`, or the bundled model in one of shipped_places(). Throws InputError that
/// lists where it was looked for.
std::filesystem::path find_model_folder(const std::string& given);

/// Threads, backend and weights. The parts are used by one engine (or one benchmark) at a time.
class ModelRuntime {
 public:
  explicit ModelRuntime(const ModelFlags& flags);

  const std::filesystem::path& folder() const { return folder_; }
  ThreadPool& pool() { return pool_; }
  ops::Ops& ops() { return *ops_; }
  Model& model() { return *model_; }
  double load_seconds() const { return load_seconds_; }
  /// "BF16", "F32", "BF16 with int8 weights", "BF16 with the file's quantised weights".
  std::string precision() const;
  /// `config` with what tiers have to know of the model: with a disk file, reads the weights once more to name them.
  EngineConfig with_fingerprint(EngineConfig config) const;

 private:
  ModelOptions options_;
  bool batch_invariant_ = true;
  std::filesystem::path folder_;
  ThreadPool pool_;
  std::unique_ptr<ops::Ops> ops_;
  std::unique_ptr<Model> model_;
  double load_seconds_ = 0;
};

}  // namespace tinyserve::cli
