#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace tinyserve {
struct StepItem;
}

namespace tinyserve::replay {

/// How long a step takes: fixed + prompt tokens computed + tokens decoded + K/V tokens read, each at its price. Affine,
/// so that a decode step is bound by memory and a prefill by arithmetic, as on real machines. Attention over the tokens
/// of a chunk itself is in the price of the prompt's tokens.
struct StepClock {
  double fixed_us = 0;          ///< a step: weights read once, launches
  double prefill_token_us = 0;  ///< a prompt token computed
  double decode_token_us = 0;   ///< a token decoded
  double kv_token_ns = 0;       ///< a token's K and V read: each sequence of the step reads its whole context once
  int64_t kv_token_bytes = 1;   ///< K and V of a token over all layers; reading and writing them is two reads

  double step_s(const std::vector<StepItem>& items) const;
  /// Copying the K and V of so many tokens within the memory: read and written.
  double copy_s(int64_t tokens) const { return 2e-9 * kv_token_ns * static_cast<double>(tokens); }
};

/// Prices of a machine by name: "h200" (a model of 3B parameters in BF16 on one H200) or "cpu" (the bundled model on two
/// cores). docs/replay.md derives them. Throws InputError for another name.
StepClock step_clock(const std::string& name);

}  // namespace tinyserve::replay
