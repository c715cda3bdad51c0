#pragma once
// A load generator for any server that speaks OpenAI's /v1/completions: streams answers to prompts of random token ids
// over plain HTTP and notes when each piece arrives. One thread for all connections, so that it takes little from a
// server on the same machine.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cli/statistics.h"

namespace tinyserve::cli {

struct LoadOptions {
  std::string url = "http://127.0.0.1:8080";  ///< without /v1; only http
  std::string model;                          ///< empty: the first that /v1/models names
  std::string api_key;
  std::string extra_body = "{}";  ///< JSON object merged into every request
  int32_t requests = 64;
  int32_t concurrency = 8;   ///< streams at once; not applied when request_rate is set
  double request_rate = 0;   ///< requests a second, at random intervals (a Poisson process); 0: as fast as streams end
  int32_t warmup = 1;        ///< requests before the clock starts, one after another
  int32_t input_len = 512;   ///< tokens of each prompt
  int32_t output_len = 128;  ///< tokens of each answer
  int32_t vocab_size = 8000; ///< prompts are drawn from ids below this
  int32_t timeout_s = 600;   ///< of one request
  uint64_t seed = 0;
};

struct LoadResult {
  int64_t completed = 0, failed = 0;
  std::string first_error;
  int64_t output_tokens = 0;   ///< as the servers' usage says, else counted by events
  int64_t input_tokens = 0;
  double wall_s = 0;
  Summary ttft_s, itl_s, tpot_s, e2e_s;
};

/// Runs the load; `on_done` hears of each finished request. Throws InputError for a bad URL or body and for a server
/// that cannot be reached at all; failures of single requests are counted.
LoadResult run_load(const LoadOptions& options, const std::function<void()>& on_done);

}  // namespace tinyserve::cli
