#include "cli/bench_report.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/model_runtime.h"
#include "cli/units.h"

namespace tinyserve::cli {

StepBytes decode_step_bytes(ModelRuntime& runtime, int64_t context_tokens, int64_t batch) {
  const Model& model = runtime.model();
  StepBytes bytes;
  bytes.weights = static_cast<double>(model.weight_bytes());
  bytes.kv = static_cast<double>(model.kv_shape().token_bytes()) * static_cast<double>(context_tokens * batch);
  return bytes;
}

Json describe_runtime(ModelRuntime& runtime) {
  const Model& model = runtime.model();
  return {{"model", runtime.folder().filename().string()},
          {"precision", runtime.precision()},
          {"backend", std::string(runtime.ops().name())},
          {"backend_description", runtime.ops().description()},
          {"threads", runtime.pool().num_threads()},
          {"parameters", model.config().num_parameters},
          {"weight_bytes", model.weight_bytes()},
          {"kv_token_bytes", model.kv_shape().token_bytes()}};
}

std::string describe_runtime_line(ModelRuntime& runtime) {
  const Model& model = runtime.model();
  return fmt::format("{}: {} parameters, {}, weights {}, K/V {} per token; {} ({})", runtime.folder().filename().string(),
                     format_count(model.config().num_parameters), runtime.precision(),
                     format_bytes(static_cast<int64_t>(model.weight_bytes())), format_bytes(model.kv_shape().token_bytes()),
                     runtime.ops().name(), runtime.ops().description());
}

Json summary_json(const Summary& s, double scale) {
  return {{"count", s.count},       {"mean", s.mean * scale}, {"min", s.min * scale}, {"p50", s.p50 * scale},
          {"p90", s.p90 * scale}, {"p99", s.p99 * scale},   {"max", s.max * scale}};
}

std::string summary_line(const Summary& s, double scale) {
  return fmt::format("mean {:.2f}  p50 {:.2f}  p90 {:.2f}  p99 {:.2f}", s.mean * scale, s.p50 * scale, s.p90 * scale,
                     s.p99 * scale);
}

void write_report(const std::string& path, const Json& report) {
  const std::string text = report.dump(2) + "\n";
  if (path == "-") {
    fmt::print("{}", text);
    return;
  }
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (!file) throw InputError(fmt::format("--json {}: {}", path, std::strerror(errno)));
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) != 0 || !written) throw InputError(fmt::format("--json {}: {}", path, std::strerror(errno)));
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file.flush()) throw InputError(fmt::format("{}: cannot be written", path));
}

}  // namespace tinyserve::cli
