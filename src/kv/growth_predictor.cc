#include "kv/growth_predictor.h"

#include <algorithm>
#include <bit>

namespace tinyserve {
namespace {

constexpr float kForget = 1 / 512.0F;  // of each answer's weight goes with every answer after it
constexpr float kEnough = 8;           // answers: fewer say nothing

}  // namespace

int32_t GrowthPredictor::class_of(int32_t tokens) {
  if (tokens < 8) return std::max(tokens, 0);
  const int32_t doubling = static_cast<int32_t>(std::bit_width(static_cast<uint32_t>(tokens))) - 1;
  return 8 + (doubling - 3) * kPerDoubling + (tokens >> (doubling - 3)) % kPerDoubling;
}

int32_t GrowthPredictor::end_of(int32_t length_class) {
  if (length_class < 8) return length_class + 1;
  const int32_t doubling = 3 + (length_class - 8) / kPerDoubling;
  return (kPerDoubling + (length_class - 8) % kPerDoubling + 1) << (doubling - 3);
}

void GrowthPredictor::ended(int32_t tokens) {
  const int32_t c = class_of(tokens);
  longest_class_ = std::max(longest_class_, c);
  weight_ *= 1 + kForget;
  counts_[c] += weight_;
  if (weight_ > 1e6F) {
    for (float& count : counts_) count /= weight_;
    weight_ = 1;
  }
}

int32_t GrowthPredictor::expected(int32_t tokens, int32_t max_tokens) const {
  const int32_t most = std::max(0, max_tokens - tokens);
  const int32_t first = class_of(tokens);
  float longer = 0;
  for (int32_t c = first; c <= longest_class_; ++c) longer += counts_[c];
  if (longer < kEnough * weight_ / 2) return std::min(most, std::max(64, tokens / 2));
  float left = longer * static_cast<float>(1 - kQuantile);
  int32_t c = longest_class_;
  while (c > first && (left -= counts_[c]) > 0) --c;
  return std::clamp(end_of(c) - 1 - tokens, 0, most);
}

}  // namespace tinyserve
