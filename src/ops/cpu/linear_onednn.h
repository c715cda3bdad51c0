#pragma once
// oneDNN on our own threads: each of them runs single-threaded primitives on its panels, so that OpenMP never starts a
// thread that would fight our spinning workers.

#include <cstddef>
#include <map>
#include <memory>
#include <utility>

#include "ops/ops.h"

namespace tinyserve::ops::linear {

/// One panel times kRows prepared rows, over all inputs of a weight of this format and width.
class OneDnnTile {
 public:
  static constexpr int64_t kRows = 64;

  virtual ~OneDnnTile() = default;
  /// acc[kRows, 64] = x W^T. x: kRows prepared rows, row stride groups * 32 elements of the weight's type. Calls with
  /// different `thread` may overlap.
  virtual void run(const std::byte* panel, const std::byte* x, float* acc, int thread) = 0;
};

/// The tiles of one backend, by format and width.
class OneDnn {
 public:
  explicit OneDnn(int num_threads) : num_threads_(num_threads) {}
  /// Null when oneDNN has no fast kernel for our layout on this machine.
  OneDnnTile* tile(WeightFormat format, int64_t groups);

 private:
  int num_threads_;
  std::map<std::pair<WeightFormat, int64_t>, std::unique_ptr<OneDnnTile>> tiles_;
};

}  // namespace tinyserve::ops::linear
