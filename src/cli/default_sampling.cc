#include "cli/default_sampling.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"

namespace tinyserve::cli {
namespace {

/// The number in `field`, from `low` to `high`; nothing when absent or null.
std::optional<float> number(const Json& config, const std::string& file, const char* field, double low, double high) {
  const auto it = config.find(field);
  if (it == config.end() || it->is_null()) return std::nullopt;
  const double v = it->is_number() ? it->get<double>() : -1;
  if (!it->is_number() || !(v >= low && v <= high))
    throw InputError(fmt::format("{}: {} is {}; it must be a number from {} to {}", file, field, it->dump(), low, high));
  return static_cast<float>(v);
}

}  // namespace

DefaultSampling read_default_sampling(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "generation_config.json";
  DefaultSampling sampling;
  if (!std::filesystem::exists(path)) return sampling;
  const std::string file = path.string();
  const Json config = parse_json(read_text_file(path, 1 << 20), file);
  if (!config.is_object()) throw InputError(file + ": not a JSON object");
  sampling.temperature = number(config, file, "temperature", 0, 100);
  sampling.top_p = number(config, file, "top_p", 0, 1);
  sampling.min_p = number(config, file, "min_p", 0, 1);
  sampling.repetition_penalty = number(config, file, "repetition_penalty", 0, 100);
  if (const auto k = number(config, file, "top_k", -1, 1 << 30)) sampling.top_k = std::max(0, static_cast<int32_t>(*k));
  // transformers samples only when do_sample is true; without it whatever temperature says goes unused.
  const auto sample = config.find("do_sample");
  if (sample != config.end() && sample->is_boolean() && !sample->get<bool>()) sampling.temperature = 0.0f;
  // Exact zeros stand for "off" in some files and for nothing valid elsewhere.
  if (sampling.top_p == 0.0f) sampling.top_p.reset();
  if (sampling.repetition_penalty == 0.0f) sampling.repetition_penalty.reset();
  return sampling;
}

}  // namespace tinyserve::cli
