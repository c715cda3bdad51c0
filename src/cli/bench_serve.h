#pragma once
#include <cstdint>
#include <string>

#include "cli/load_client.h"

namespace tinyserve::cli {

/// Runs the load against options.url and prints throughput and latencies.
/// `server` is a line about who is measured. Returns the exit code: 1 when no request succeeded.
int run_serve_load(const LoadOptions& options, const std::string& server, const std::string& json);

}  // namespace tinyserve::cli
