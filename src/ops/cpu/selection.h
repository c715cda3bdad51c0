#pragma once
// Query-aware selection on the CPU: the steps of SparseAttentionArgs for one row and KV head after the other, all query heads of
// the KV head together, so that codes, keys and values are read once for them.

#include <vector>

#include "base/aligned_buffer.h"
#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/selection_kernel.h"
#include "ops/cpu/selection_task.h"
#include "ops/ops.h"

namespace tinyserve {
class ThreadPool;
}

namespace tinyserve::ops::cpu {

class CpuSelection {
 public:
  /// Construct under ScopedIsa(isa).
  CpuSelection(ThreadPool& pool, Isa isa);
  void reserve(const Limits& limits);
  void encode(const EncodeArgs& args);
  void attention(const SparseAttentionArgs& args, const BatchLayout& batch);
  /// Adds up where the time goes; one for each thread of the pool. Null: no longer.
  void trace(SelectionTrace* of_threads) { trace_ = of_threads; }

 private:
  ThreadPool& pool_;
  const SelectionKernel* kernel_;
  SelectionMaps maps_;
  AttentionKernel f32_, bf16_;  // by cache dtype
  std::vector<AlignedBuffer> scratch_;  // of each thread
  SelectionTrace* trace_ = nullptr;
};

}  // namespace tinyserve::ops::cpu
