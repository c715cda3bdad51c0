#include "model/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/in_quotes.h"
#include "model/limits.h"

namespace tinyserve {
namespace {

constexpr double kMaxFactor = 1e6;

std::vector<double> plain_frequencies(double theta, int32_t head_dim) {
  std::vector<double> out(static_cast<size_t>(head_dim) / 2);
  for (size_t i = 0; i < out.size(); ++i) out[i] = std::pow(theta, -2.0 * static_cast<double>(i) / head_dim);
  return out;
}

// Llama 3.1: wavelengths beyond the original context are stretched by `factor`, short ones kept, those between blended.
void scale_llama3(Rope& rope, const ConfigReader& scaling, double original) {
  const double factor = scaling.number("factor", 1, kMaxFactor);
  const double low = scaling.number("low_freq_factor", 1e-6, kMaxFactor);
  const double high = scaling.number("high_freq_factor", 1e-6, kMaxFactor);
  if (high <= low) scaling.fail("high_freq_factor", "must be larger than low_freq_factor");
  for (double& frequency : rope.inverse_frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < original / high) continue;
    const double blend = std::clamp((original / wavelength - low) / (high - low), 0.0, 1.0);
    frequency *= (1 - blend) / factor + blend;
  }
}

// YaRN: channels that turn more than beta_fast times within the original context are kept, those that turn less than
// beta_slow times are stretched, with a linear ramp over the channels between.
void scale_yarn(Rope& rope, const ConfigReader& scaling, double theta, int32_t head_dim, double original,
                double factor) {
  const double beta_fast = scaling.number("beta_fast", 1e-3, kMaxFactor, 32);
  const double beta_slow = scaling.number("beta_slow", 1e-3, kMaxFactor, 1);
  const auto channel_of = [&](double turns) {
    return head_dim * std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  double first = channel_of(beta_fast), last = channel_of(beta_slow);
  if (scaling.flag("truncate", true)) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, head_dim - 1.0);
  if (first == last) last += 0.001;
  for (size_t i = 0; i < rope.inverse_frequencies.size(); ++i) {
    const double stretched = std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
    rope.inverse_frequencies[i] *= stretched / factor + (1 - stretched);
  }

  const auto magnitude = [&](double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; };
  const double mscale = scaling.number("mscale", 0, 1000, 0), mscale_all = scaling.number("mscale_all_dim", 0, 1000, 0);
  if (scaling.has("attention_factor"))
    rope.magnitude = scaling.number("attention_factor", 1e-6, 1000);
  else if (mscale > 0 && mscale_all > 0)
    rope.magnitude = magnitude(mscale) / magnitude(mscale_all);
  else
    rope.magnitude = magnitude(1);
}

int32_t stretched_positions(double positions, double factor) {
  return static_cast<int32_t>(std::min(positions * factor, double{kMaxPositions}));
}

// A set of rope parameters {rope_theta, rope_type, factor, ...}; `config`: what stands beside it.
Rope read_rope_set(const ConfigReader& config, const ConfigReader& set, double theta, int32_t head_dim,
                   int32_t max_position_embeddings) {
  Rope rope{.max_positions = max_position_embeddings};
  theta = set.number("rope_theta", 1.0001, 1e12, theta);
  set.reject_unless_neutral("partial_rotary_factor", "only whole heads are rotated here", 1);
  rope.inverse_frequencies = plain_frequencies(theta, head_dim);

  const std::string type = set.text("rope_type", set.text("type", "default"));
  if (type == "default") return rope;
  // A field beside the scaling wins over the one in it, as in transformers.
  const double original =
      config.has("original_max_position_embeddings")
          ? config.integer("original_max_position_embeddings", 1, kMaxPositions)
          : set.integer("original_max_position_embeddings", 1, kMaxPositions, max_position_embeddings);
  if (type == "linear") {
    const double factor = set.number("factor", 1, kMaxFactor);
    for (double& frequency : rope.inverse_frequencies) frequency /= factor;
    rope.max_positions = stretched_positions(max_position_embeddings, factor);
  } else if (type == "llama3") {
    scale_llama3(rope, set, original);
  } else if (type == "yarn") {
    const double factor = set.number("factor", 1, kMaxFactor, std::max(1.0, max_position_embeddings / original));
    scale_yarn(rope, set, theta, head_dim, original, factor);
    rope.max_positions = std::max(max_position_embeddings, stretched_positions(original, factor));
  } else {
    set.fail("rope_type", fmt::format("is {}; default, linear, llama3 and yarn are computed", in_quotes(type)));
  }
  return rope;
}

}  // namespace

Rope read_rope(const ConfigReader& config, int32_t head_dim, int32_t max_position_embeddings) {
  if (head_dim % 2 != 0) config.fail("head_dim", fmt::format("is {}; rotary embeddings need an even one", head_dim));
  // Older configurations: rope_theta beside rope_scaling {type, factor, ...}; newer: rope_parameters {rope_theta,
  // rope_type, factor, ...}. rope_scaling wins over rope_parameters where both are there, as in transformers.
  std::optional<ConfigReader> scaling = config.object("rope_scaling");
  if (!scaling) scaling = config.object("rope_parameters");
  if (scaling && scaling->has_nested_object())
    config.fail("rope_parameters", "has a set per layer type, which this family does not compute");
  config.reject_unless_neutral("partial_rotary_factor", "only whole heads are rotated here", 1);
  double theta = config.number("rope_theta", 1.0001, 1e12, 10000);
  Rope rope{.max_positions = max_position_embeddings};
  // GGUF files have Llama 3's scaling worked out: what to divide each frequency by.
  const std::vector<double> factors = config.numbers("rope_frequency_factors", 1e-6, kMaxFactor);
  if (!factors.empty()) {
    if (scaling) config.fail("rope_frequency_factors", "are given, and a scaling beside them");
    if (factors.size() != static_cast<size_t>(head_dim) / 2)
      config.fail("rope_frequency_factors",
                  fmt::format("are {}; heads of {} need {}", factors.size(), head_dim, head_dim / 2));
    rope.inverse_frequencies = plain_frequencies(theta, head_dim);
    for (size_t i = 0; i < factors.size(); ++i) rope.inverse_frequencies[i] /= factors[i];
    return rope;
  }
  if (!scaling) {
    rope.inverse_frequencies = plain_frequencies(theta, head_dim);
    return rope;
  }
  return read_rope_set(config, *scaling, theta, head_dim, max_position_embeddings);
}

std::pair<Rope, Rope> read_rope_pair(const ConfigReader& config, int32_t head_dim, int32_t max_position_embeddings) {
  if (head_dim % 2 != 0) config.fail("head_dim", fmt::format("is {}; rotary embeddings need an even one", head_dim));
  constexpr double kTheta = 1e6, kWindowTheta = 1e4;  // where the file is silent, as in transformers
  const std::optional<ConfigReader> sets = config.object("rope_parameters");
  if (sets && sets->has_nested_object()) {
    const auto set = [&](const char* type, double theta) {
      const std::optional<ConfigReader> of_type = sets->object(type);
      if (!of_type) sets->fail(type, "is missing");
      return read_rope_set(config, *of_type, theta, head_dim, max_position_embeddings);
    };
    return {set("full_attention", kTheta), set("sliding_attention", kWindowTheta)};
  }
  const double theta = config.number("rope_theta", 1.0001, 1e12, kTheta);
  const double window_theta = config.number("rope_local_base_freq", 1.0001, 1e12, kWindowTheta);
  Rope all{.inverse_frequencies = plain_frequencies(theta, head_dim), .max_positions = max_position_embeddings};
  Rope windows{.inverse_frequencies = plain_frequencies(window_theta, head_dim),
               .max_positions = max_position_embeddings};
  if (const std::optional<ConfigReader> scaling = config.object("rope_scaling"))
    all = read_rope_set(config, *scaling, theta, head_dim, max_position_embeddings);
  return {std::move(all), std::move(windows)};
}

void RopeTable::reserve(const Rope& rope, int64_t max_tokens, ops::Ops& ops) {
  sin_offset_ = max_tokens * static_cast<int64_t>(rope.inverse_frequencies.size());
  const size_t bytes = static_cast<size_t>(2 * sin_offset_) * sizeof(float);
  table_ = ops.allocate(bytes);
  if (!ops.on_host()) host_ = AlignedBuffer(bytes);
}

void RopeTable::compute(const Rope& rope, const int32_t* positions, int64_t num_tokens, ops::Ops& ops) {
  float* const cosines = ops.on_host() ? table_->as<float>() : host_.as<float>();
  float* const sines = cosines + sin_offset_;
  int64_t i = 0;
  for (int64_t t = 0; t < num_tokens; ++t)
    for (const double frequency : rope.inverse_frequencies) {
      const double angle = positions[t] * frequency;
      cosines[i] = static_cast<float>(std::cos(angle) * rope.magnitude);
      sines[i++] = static_cast<float>(std::sin(angle) * rope.magnitude);
    }
  if (ops.on_host()) return;
  ops.upload(table_->as<float>(), cosines, static_cast<size_t>(i) * sizeof(float));
  ops.upload(table_->as<float>() + sin_offset_, sines, static_cast<size_t>(i) * sizeof(float));
}

}  // namespace tinyserve
