#pragma once
// What every benchmark prints: what ran where, times, bytes moved, and how near that is to the memory's speed.

#include <cstdint>
#include <string>

#include "base/json.h"
#include "cli/statistics.h"

namespace tinyserve::cli {

class ModelRuntime;

/// Bytes one decode step must read at least: the weights once for the whole batch, each sequence's K/V once.
struct StepBytes {
  double weights = 0;
  double kv = 0;
  double total() const { return weights + kv; }
};
StepBytes decode_step_bytes(ModelRuntime& runtime, int64_t context_tokens, int64_t batch);

/// {"model", "precision", "backend", "threads", "parameters", "weight_bytes", "kv_token_bytes"}.
Json describe_runtime(ModelRuntime& runtime);
/// The same on one line, for people.
std::string describe_runtime_line(ModelRuntime& runtime);
/// {"count", "mean", "min", "p50", "p90", "p99", "max"}, each value times `scale`.
Json summary_json(const Summary& summary, double scale);
/// "mean 2.31  p50 2.30  p90 2.41  p99 2.80", each value times `scale`.
std::string summary_line(const Summary& summary, double scale);
/// Writes the report to `path` ("-": stdout). Throws InputError when the file cannot be written.
void write_report(const std::string& path, const Json& report);
/// Writes a whole file. Throws InputError when it cannot be written.
void write_text(const std::string& path, const std::string& text);

}  // namespace tinyserve::cli
