#pragma once
// Rotary position embedding (RoFormer, arXiv 2104.09864) and its scalings to longer contexts: linear, Llama 3's, and
// YaRN (arXiv 2309.00071), with the field names and defaults of transformers' configurations.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "model/config_reader.h"
#include "ops/ops.h"

namespace tinyserve {

/// How fast each pair of channels turns.
struct Rope {
  std::vector<double> inverse_frequencies;  ///< [head_dim / 2], radians per position, scaling applied
  double magnitude = 1;                     ///< factor on cos and sin (YaRN's attention factor)
  int32_t max_positions = 0;                ///< longest context, scaling applied
};

/// Reads rope_theta and rope_scaling, or rope_parameters as newer configurations have it. Throws InputError for scaling
/// types and fields that are not computed.
Rope read_rope(const ConfigReader& config, int32_t head_dim, int32_t max_position_embeddings);

/// Gemma 3's two: of layers that see all tokens, and of layers with windows. Reads rope_theta, rope_scaling and
/// rope_local_base_freq, or rope_parameters with a set for each of the two types of layer. Throws as read_rope() does.
std::pair<Rope, Rope> read_rope_pair(const ConfigReader& config, int32_t head_dim, int32_t max_position_embeddings);

/// cos and sin of one step's positions, computed once per step and read by every layer.
class RopeTable {
 public:
  void reserve(const Rope& rope, int64_t max_tokens, ops::Ops& ops);
  /// Angles in F64, so that positions far out lose nothing; results in F32. positions: in host memory.
  void compute(const Rope& rope, const int32_t* positions, int64_t num_tokens, ops::Ops& ops);
  /// [num_tokens, head_dim / 2], in the backend's memory.
  const float* cos() const { return table_->as<float>(); }
  const float* sin() const { return table_->as<float>() + sin_offset_; }

 private:
  std::unique_ptr<ops::Memory> table_;
  AlignedBuffer host_;  // the same, where the backend's memory is not the host's
  int64_t sin_offset_ = 0;
};

}  // namespace tinyserve
