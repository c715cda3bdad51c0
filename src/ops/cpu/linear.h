#pragma once
// y = x W^T on this machine's SIMD units: packing of weights, choice of kernels, division of the work over the pool.

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "ops/ops.h"

namespace tinyserve::ops {

namespace linear {
struct Kernels;
}

/// The CPU backend's linear(). Every output is one chain of accumulations over the inputs in rising order, whatever the
/// number of rows or threads, so a row's result does not depend on what else is in the batch. With
/// OpsOptions::batch_invariant unset, BF16 and F32 products of 64 rows and more go through oneDNN where it has kernels
/// for the packed layout (AVX-512 up): measured as fast as ours on AVX-512 BF16; it would use AMX, which we have not
/// been able to measure. Weights in blocks are multiplied as integers whatever the rows (block_panels.h).
class CpuLinear {
 public:
  /// The best kernels this machine can run.
  CpuLinear(ThreadPool& pool, const OpsOptions& options);
  /// Given kernels, one of linear::available_kernels(); for tests and measurements.
  CpuLinear(ThreadPool& pool, const OpsOptions& options, const linear::Kernels& kernels);
  ~CpuLinear();

  /// E.g. "AVX-512 BF16 VNNI".
  std::string description() const;
  /// Sizes scratch for steps of limits.max_tokens rows. May come before or after the weights are packed.
  void reserve(const Limits& limits);
  /// As Ops::pack_weight. Throws InputError when memory is short.
  std::unique_ptr<PackedWeight> pack_weight(std::span<const WeightSource> parts, WeightFormat format);
  /// As Ops::linear. args.weight comes from this object's pack_weight.
  void run(const LinearArgs& args);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tinyserve::ops
