#include "replay/synthetic_tokens.h"

#include <algorithm>

namespace tinyserve::replay {
namespace {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;

/// Stafford's mix 13, the finaliser of SplitMix64.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// Tokens `from`.. of the block that begins with the stream `state`. One multiplication a token: hashing sees to the
/// rest.
void draw(uint64_t state, int32_t from, int32_t count, int32_t* out) {
  for (int32_t i = 0; i < count; ++i)
    out[i] = static_cast<int32_t>(((state ^ static_cast<uint64_t>(from + i)) * kGolden) >> 33);
}

}  // namespace

void SyntheticTokens::extend(int64_t index, int32_t end, std::vector<int32_t>& out) const {
  const TraceRequest& request = trace_.requests[static_cast<size_t>(index)];
  const auto names = trace_.names_of(request);
  const int32_t block = trace_.tokens_per_name;
  const int64_t named = static_cast<int64_t>(names.size()) * block;
  auto at = static_cast<int32_t>(out.size());
  out.resize(static_cast<size_t>(end));
  while (at < end && at < named) {
    const int32_t stop = static_cast<int32_t>(std::min<int64_t>(end, (int64_t{at} / block + 1) * block));
    // The seed and what is mixed in tell names, and requests without one, apart.
    draw(mix(names[static_cast<size_t>(at / block)] + seed_ * kGolden + 1), at % block, stop - at, out.data() + at);
    at = stop;
  }
  if (at < end) draw(mix(mix(static_cast<uint64_t>(index) + 0x5851F42D4C957F2Du) + seed_ * kGolden), at, end - at, out.data() + at);
}

}  // namespace tinyserve::replay
