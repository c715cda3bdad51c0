#include "kv/tiers/tier_cost.h"

namespace tinyserve {
namespace {
constexpr double kFade = 0.9;        // a measurement's weight after one more
constexpr int32_t kAskAgain = 32;
}  // namespace

void TierCost::Rate::add(double more, double took) {
  if (more <= 0 || took < 0) return;
  amount = kFade * amount + more;
  seconds = kFade * seconds + took;
}

void TierCost::computed(int64_t tokens, double seconds) { prefill_.add(static_cast<double>(tokens), seconds); }

void TierCost::moved(Tier tier, int64_t pages, double seconds) {
  moves_[static_cast<size_t>(tier)].add(static_cast<double>(pages), seconds);
}

double TierCost::compute_s(int64_t tokens) const { return static_cast<double>(tokens) * prefill_.each(); }

double TierCost::move_s(Tier tier, int64_t pages) const {
  return static_cast<double>(pages) * moves_[static_cast<size_t>(tier)].each();
}

bool TierCost::worth(Tier tier, int64_t pages, int64_t tokens) {
  const Rate& move = moves_[static_cast<size_t>(tier)];
  if (prefill_.amount == 0 || move.amount == 0) return true;
  if (move_s(tier, pages) <= compute_s(tokens)) return true;
  return ++refusals_[static_cast<size_t>(tier)] % kAskAgain == 0;
}

}  // namespace tinyserve
