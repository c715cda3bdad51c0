#include "ops/cpu/selection.h"

#include <algorithm>

#include "base/thread_pool.h"

namespace tinyserve::ops::cpu {

CpuSelection::CpuSelection(ThreadPool& pool, Isa isa)
    : pool_(pool),
      kernel_(isa >= Isa::kAvx512Bf16 ? selection_kernel_avx512() : nullptr),
      maps_(selection_maps()),
      f32_(attention_kernel_f32(DType::kF32)),
      bf16_(isa >= Isa::kAvx512Bf16 ? attention_kernel_avx512bf16() : attention_kernel_f32(DType::kBF16)) {
  if (!kernel_) kernel_ = &selection_kernel_avx2();
}

void CpuSelection::reserve(const Limits& limits) {
  scratch_.clear();
  for (int t = 0; t < pool_.num_threads(); ++t) scratch_.emplace_back(SparseTask::scratch_bytes(limits, f32_, bf16_));
}

void CpuSelection::encode(const EncodeArgs& args) {
  const int32_t heads = args.cache.kv_heads;
  pool_.parallel_for(static_cast<int64_t>(args.pages.size()) * heads, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i)
      maps_.encode(args, args.pages[i / heads], static_cast<int32_t>(i % heads), scratch_[thread].as<float>());
  });
}

void CpuSelection::attention(const SparseAttentionArgs& args, const BatchLayout& batch) {
  // Head by head, so that a thread has the rows of one head after the other: where their sequences share pages, the codes of these
  // are in its cache.
  const int64_t heads = args.cache.kv_heads, rows = static_cast<int64_t>(args.rows.size());
  const AttentionKernel& exact = args.cache.dtype == DType::kF32 ? f32_ : bf16_;
  pool_.parallel_for(rows * heads, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / rows, row = i % rows;
      SparseTask task(args, batch, args.rows[row], static_cast<int32_t>(head), *kernel_, maps_, exact, scratch_[thread].data(),
                      trace_ ? trace_ + thread : nullptr);
      task.run(args.stats ? args.stats + row * heads + head : nullptr);
    }
  });
}

}  // namespace tinyserve::ops::cpu
