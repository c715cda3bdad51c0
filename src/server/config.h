#pragma once
// What the server is told at the start. Plain data; `tinyserve serve` fills it from flags.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "select/selection_config.h"

namespace tinyserve {

/// Sampling a request gets when it says nothing itself: generation_config.json's values, then OpenAI's.
struct DefaultSampling {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
};

struct ServerConfig {
  std::string host = "127.0.0.1";  ///< address or name to listen on
  uint16_t port = 8080;            ///< 0: a free one, see Server::port()
  /// Any of these opens everything but /health with "Authorization: Bearer KEY"; none: open to all who reach the port.
  std::vector<std::string> api_keys;
  /// Whether prompts of one key may be found by another's; if so, it can time them. Without keys there is one client.
  bool share_cache_between_keys = false;
  /// Names requests may ask for; the first is the one answers carry. At least one.
  std::vector<std::string> model_names;
  DefaultSampling default_sampling;
  SelectionConfig selection;  ///< the engine's, which a request may change for itself
  std::string record_trace;  ///< file for a trace of the requests, without their text (docs/replay.md); empty: none

  // Limits on what clients send. Sizes in bytes, times in seconds.
  size_t max_body_bytes = size_t{32} << 20;         ///< of one request; more is 413
  size_t max_total_body_bytes = size_t{256} << 20;  ///< of all requests being read or parsed; more is 503
  size_t max_header_bytes = size_t{16} << 10;       ///< request line and fields; more is 431
  size_t max_json_values = size_t{1} << 20;         ///< values in one body; bounds what parsing may allocate
  int32_t max_prompts = 128;                        ///< in one /v1/completions request
  int32_t max_n = 128;                              ///< choices per prompt; the engine takes 128 at most
  int32_t max_choices = 512;                        ///< prompts x n of one request
  int32_t max_logprobs = 20;                        ///< alternatives per token; the engine takes 20 at most
  double header_timeout_s = 10;  ///< from a request's first byte (or the connection) to its last field
  double body_timeout_s = 60;    ///< from the last field to the end of the body
  double idle_timeout_s = 75;    ///< between two requests on a kept-alive connection
  double write_timeout_s = 30;   ///< without the client taking a byte while there is one to take
  double request_timeout_s = 0;  ///< from a complete request to the end of its answer; 0: none
  size_t max_stream_buffer_bytes = size_t{1} << 20;  ///< SSE bytes a client may leave unread before it is cut off

  // Limits on how much is done at once.
  int32_t max_connections = 4096;  ///< more are answered 503 and closed; lowered to what the open-file limit allows
  int32_t worker_threads = 2;      ///< parse, template and tokenise, off the I/O thread
  int32_t max_worker_queue = 256;  ///< requests waiting for a worker; more are 429
  double drain_timeout_s = 30;     ///< for running requests after the first SIGTERM or stop()
  bool handle_signals = true;      ///< SIGINT and SIGTERM drain, a second one stops
  bool announce = true;            ///< print the URL and an example on stdout once listening
};

}  // namespace tinyserve
