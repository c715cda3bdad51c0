#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace tinyserve {

enum class Tier : uint8_t { kHost, kDisk };

/// Whether a step of so many rows, so many of them prompts', says what prompts cost.
inline bool mostly_prompts(int64_t prompt_rows, int64_t rows) { return prompt_rows >= 16 && prompt_rows * 4 >= rows * 3; }

/// Is it cheaper to bring pages back from a tier than to compute them again? Decided by what both were measured to cost in
/// this process: times are sums in which old measurements fade, so their ratio follows the machine. Before the first
/// measurement of either side the answer is yes: that is how the measurement is got. After a no, every 32nd question is
/// answered yes all the same, so that one bad moment does not switch a tier off for good.
class TierCost {
 public:
  /// A step that computed `tokens` tokens, mostly of prompts, took `seconds`.
  void computed(int64_t tokens, double seconds);
  /// `pages` pages came from the tier into the cache in `seconds`, waiting not included.
  void moved(Tier tier, int64_t pages, double seconds);

  /// Should `pages` pages be brought back, given that without them `tokens` tokens are computed?
  bool worth(Tier tier, int64_t pages, int64_t tokens);

  double compute_s(int64_t tokens) const;           ///< 0: not measured
  double move_s(Tier tier, int64_t pages) const;    ///< 0: not measured
  bool measured() const { return prefill_.amount > 0; }

 private:
  struct Rate {  // fading sums
    double amount = 0, seconds = 0;
    void add(double more, double took);
    double each() const { return amount > 0 ? seconds / amount : 0; }
  };
  Rate prefill_;
  std::array<Rate, 2> moves_;
  std::array<int32_t, 2> refusals_{};
};

}  // namespace tinyserve
