#pragma once
// Attention over pages on the CPU: plans on the host, once a call, then runs one parallel region.
//
// Work is cut into tiles (a range of query rows of one sequence, all query heads of a KV head's group together, so that
// each K/V page is read once for all of them; in decode all KV heads, so that a page is read from end to end) and,
// where rows are few and the context is long (decode), further into ranges of splits along the context. Threads take
// items from one list, largest first, whatever mix of decode and prefill it holds. The thread that finishes a tile's
// last item folds its splits in order: there is no second barrier. The layers of a step share one plan: it is made
// again only when lengths or shapes change.

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "base/aligned_buffer.h"
#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/isa.h"
#include "ops/ops.h"

namespace tinyserve::ops::cpu {

class CpuAttention {
 public:
  /// Construct under ScopedIsa(isa).
  CpuAttention(ThreadPool& pool, Isa isa);
  void reserve(const Limits& limits);
  void run(const AttentionArgs& args, const BatchLayout& batch);

 private:
  struct Tile {
    int32_t seq;
    int32_t head_begin, head_end;    // KV heads; several only where rows are few
    int32_t row_begin, row_end;      // rows of the sequence's step for one KV head: row = token * group + query head
    int32_t lo, hi;                  // positions that some row sees, inclusive
    int32_t split_begin, split_end;  // kSplit-sized pieces of the context they lie in
    int64_t partial;                 // offset of split_begin's states in partials_, or -1: done in one item
    int32_t counter;                 // index in pending_
    int32_t pieces;                  // items that the tile was cut into
  };
  struct Item {
    int32_t tile, split_begin, split_end;
    float cost;
  };
  struct Thread {  // scratch of one thread
    AlignedBuffer memory;
    std::byte *packed, *q, *rows;
    float *part, *total;
    int32_t *first, *last;
  };

  bool planned(const AttentionArgs& args, const BatchLayout& batch) const;
  void plan(const AttentionArgs& args, const BatchLayout& batch);
  int32_t heads_per_tile(int64_t rows, int64_t positions, int32_t splits, int32_t kv_heads, double item_cost) const;
  void add_tile(Tile tile, double item_cost);
  void run_item(const Item& item, const AttentionArgs& args, const BatchLayout& batch, const AttentionKernel& kernel,
                Thread& thread);
  void run_split(const Tile& tile, int32_t split, const AttentionArgs& args, const BatchLayout& batch,
                 const AttentionKernel& kernel, Thread& thread, float* states);
  void prefetch_start(const Tile& tile, int32_t split, const AttentionArgs& args, const BatchLayout& batch);
  void write_out(const Tile& tile, float* totals, const AttentionArgs& args, const BatchLayout& batch,
                 const AttentionKernel& kernel);

  ThreadPool& pool_;
  AttentionKernel f32_, bf16_;  // by cache dtype
  Limits limits_;
  std::vector<Tile> tiles_;
  std::vector<Item> items_;
  double total_cost_ = 0;
  // What the plan was made for.
  std::array<int32_t, 4> planned_shape_{};   // heads, KV heads, head_dim, window
  std::vector<int32_t> planned_query_lens_;  // cumulative
  std::vector<int32_t> planned_kv_lens_;
  std::vector<Thread> threads_;
  AlignedBuffer partials_;
  int64_t partial_used_ = 0;
  std::unique_ptr<std::atomic<int32_t>[]> pending_;  // items of a tile not yet done
  int32_t pending_used_ = 0;
  alignas(64) std::atomic<int32_t> next_item_{0};
};

}  // namespace tinyserve::ops::cpu
