#pragma once
#include <cstdint>
#include <string>

#include "engine/engine.h"

namespace tinyserve::cli {

class ModelRuntime;

struct ThroughputOptions {
  int32_t requests = 64;
  int32_t input_len = 512;
  int32_t output_len = 128;
  int32_t warmup = 1;  ///< requests before the clock starts
  uint64_t seed = 0;
  std::string json;    ///< file for the report; empty: none
};

/// Gives all requests (random tokens, end of text ignored) to an engine at once and runs it until they are done.
/// Returns the exit code.
int run_throughput(ModelRuntime& runtime, const EngineConfig& config, const ThroughputOptions& options);

}  // namespace tinyserve::cli
