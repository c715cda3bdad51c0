#pragma once
#include <array>
#include <cstdint>

namespace tinyserve {

/// How much longer an answer will become: from how long it is already, the most it may be, and how long answers were so
/// far. Those that ended are counted in classes of length, old ones less and less; of all that were at least as long as
/// this one, the quantile kQuantile says where to expect the end. An answer longer than nearly all before is expected
/// to become half as long again.
///
/// Asking for more than the mean is right here: room that stays unused costs little (it is given to whoever needs it),
/// growth that finds its room gone costs a run of pages.
class GrowthPredictor {
 public:
  /// An answer ended of itself, or at its limit, after this many tokens.
  void ended(int32_t tokens);
  /// Tokens still to come of an answer that has `tokens` and may have `max_tokens`: between 0 and the difference.
  int32_t expected(int32_t tokens, int32_t max_tokens) const;

  static constexpr double kQuantile = 0.75;

 private:
  static constexpr int32_t kPerDoubling = 8, kNumClasses = 8 + 28 * kPerDoubling;
  static int32_t class_of(int32_t tokens);
  static int32_t end_of(int32_t length_class);  ///< the first length of the class after it

  std::array<float, kNumClasses> counts_{};  // grows with `weight_`, so that old ones count less
  float weight_ = 1;
  int32_t longest_class_ = -1;
};

}  // namespace tinyserve
