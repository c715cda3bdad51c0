#pragma once
#include <cstddef>

#include "base/aligned_buffer.h"

namespace tinyserve {
class ThreadPool;
}

namespace tinyserve::cli {

/// Measures how fast the pool's threads together read memory front to back: the ceiling of decoding, which reads all weights
/// and each sequence's K/V once per token. Keeps its memory, so that it can be asked again between other measurements (a
/// shared machine's memory drifts by a third within minutes).
class BandwidthProbe {
 public:
  /// The pool outlives it. Take a size well beyond all caches, the host's included: 256 MiB still reads a tenth faster than
  /// 1 GiB on some virtual machines. Throws InputError when there is not that much memory.
  explicit BandwidthProbe(ThreadPool& pool, size_t size_bytes = size_t{1} << 30);

  /// Bytes per second of the best of `repetitions` passes.
  double measure(int repetitions = 3);
  /// The best that measure() has given so far.
  double best() const { return best_; }

 private:
  ThreadPool& pool_;
  AlignedBuffer buffer_;
  double best_ = 0;
};

}  // namespace tinyserve::cli
