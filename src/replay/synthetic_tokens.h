#pragma once
#include <cstdint>
#include <vector>

#include "replay/trace.h"

namespace tinyserve::replay {

/// Token ids that are equal where the trace says that texts were, and differ elsewhere: the tokens of a named block
/// are pseudo-random numbers drawn from its name (and the seed), all others from the request's index. The real hashes
/// and the real prefix cache then find what they would have found.
class SyntheticTokens {
 public:
  SyntheticTokens(const Trace& trace, uint64_t seed) : trace_(trace), seed_(seed) {}

  /// Appends tokens [out.size(), end) of request `index` to `out`. Any end: there is no last one.
  void extend(int64_t index, int32_t end, std::vector<int32_t>& out) const;

 private:
  const Trace& trace_;
  uint64_t seed_;
};

}  // namespace tinyserve::replay
