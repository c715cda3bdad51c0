#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "select/selection_config.h"

namespace tinyserve::cli {

class ModelRuntime;

/// One run per combination of depth, batch and input length.
struct LatencyOptions {
  std::vector<int32_t> depths = {0};         ///< tokens in the cache before the measured part
  std::vector<int32_t> batches = {1};        ///< sequences decoded together
  std::vector<int32_t> input_lens = {512};   ///< prompt tokens prefilled at that depth; 0: none
  int32_t output_len = 64;                   ///< tokens decoded after that; 0: none
  int32_t chunk = 512;                       ///< prompt tokens of one step
  int32_t warmup = 1;                        ///< iterations thrown away
  int32_t iterations = 3;
  bool fake_kv = false;  ///< make the depth by copying the K/V pages of a 512-token prefill
  SelectionConfig selection;  ///< of decoded tokens
  std::string json;      ///< file for the report; empty: none
};

/// Times the model's steps without engine or sampler; prints a line per combination. Returns the exit code.
int run_latency(ModelRuntime& runtime, const LatencyOptions& options);

}  // namespace tinyserve::cli
