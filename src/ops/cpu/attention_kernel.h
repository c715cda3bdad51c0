#pragma once
// The innermost part of attention, one implementation per instruction set and cache dtype: softmax(q K^T) V of a few
// query rows over one block of K/V, carried in a per-row state (running maximum, sum, accumulator: "online softmax",
// Milakov and Gimelshein 2018, FlashAttention). attention.cc plans which rows meet which blocks, on which thread.
//
// Invariance. A row is one query head of one token. What a kernel computes for a row depends on the row's query, its
// visible positions and K/V alone:
// - blocks are cut at absolute positions (multiples of kBlock), and the state after a split of kSplit positions is
// folded
//   into the row's total in order of position, whether one thread does all splits or each is done elsewhere;
// - a block in which the row sees nothing leaves the state bit for bit: its scores are masked to kMasked, the maximum
//   stays, exp2(0) == 1 scales, and zeros are added. So rows of different extent may share a tile.

#include <cstddef>
#include <cstdint>

#include "ops/ops.h"

namespace tinyserve::ops::cpu {

constexpr int kRun = 16;    ///< positions that lie contiguously in a page
constexpr int kBlock = 64;  ///< positions per step of the online softmax
constexpr int kRunsPerBlock = kBlock / kRun;
constexpr int kSplit = 1024;          ///< positions whose partial result is folded into the total at once
constexpr int kSumLanes = 16;         ///< the sum of a row is kept as a vector and reduced at the fold
constexpr float kNoMaximum = -1e30f;  ///< finite, so that kNoMaximum - kNoMaximum is 0
constexpr float kMasked = -3e38f;

/// Width of a row of the accumulator: head_dim rounded up to whole vectors.
constexpr int padded_dim(int head_dim) { return (head_dim + 15) / 16 * 16; }

/// State of `rows` rows, in one piece of memory of state_floats(rows, head_dim) floats.
struct RowState {
  float* acc;      ///< [rows, padded_dim]
  float* sum;      ///< [rows, kSumLanes]
  float* maximum;  ///< [rows], in units of log2
};
constexpr int64_t state_floats(int64_t rows, int head_dim) {
  return rows * (padded_dim(head_dim) + kSumLanes) + (rows + 15) / 16 * 16;
}
inline RowState state_at(float* memory, int64_t rows, int head_dim) {
  float* sum = memory + rows * padded_dim(head_dim);
  return {memory, sum, sum + rows * kSumLanes};
}

/// One block of K and V of one KV head, in the cache.
struct BlockSource {
  const std::byte* k[kRunsPerBlock];  ///< first position of each run, [kRun, head_dim]; null: nothing may be read there
  const std::byte* v[kRunsPerBlock];
  const std::byte* next_k[kRunsPerBlock];  ///< of the block to prefetch meanwhile, or null
  const std::byte* next_v[kRunsPerBlock];
  int begin, end;  ///< positions of the block (0..kBlock) that somebody sees; the others may hold anything, even NaN
};

/// Rows of one tile, against one block.
struct BlockRows {
  std::byte* packed;     ///< packed_block_bytes of scratch, for blocks that many rows share
  const std::byte* q;    ///< [rows, q_row_bytes]
  const int32_t* first;  ///< [rows], first visible position
  const int32_t* last;   ///< [rows], last visible position; increasing with the row
  RowState state;
  int32_t start;  ///< position of the block
  int32_t num_rows;
  int32_t head_dim;
  float softcap;       ///< in units of log2; 0: none
  std::byte* scratch;  ///< kRowScratchBytes
};
constexpr size_t kRowScratchBytes = 2 * 8 * kBlock * sizeof(float);  // scores and probabilities of up to 8 rows

struct AttentionKernel {
  size_t (*q_row_bytes)(int head_dim);         ///< a multiple of 64
  size_t (*packed_block_bytes)(int head_dim);  ///< a multiple of 64
  /// Converts one query row, multiplied by `factor`.
  void (*load_q)(const float* q, int head_dim, float factor, std::byte* to);
  /// Advances the rows' state by one block. What the cache holds outside [begin, end) has no influence.
  void (*run)(const BlockSource& source, const BlockRows& rows);
  /// total = total (+) part, for each row; `part`'s sums are reduced, total's are single numbers in sum[0].
  void (*fold)(const RowState& total, const RowState& part, int64_t rows, int head_dim);
  /// out[i] = acc[i] / sum for one row of a total.
  void (*finish)(const float* acc, float sum, int head_dim, float* out);
};

/// F32 arithmetic on Highway's chosen target, for caches of either dtype. Read under a ScopedIsa.
AttentionKernel attention_kernel_f32(DType cache_dtype);
/// BF16 products summed in F32 (vdpbf16ps), for BF16 caches; needs Isa::kAvx512Bf16.
AttentionKernel attention_kernel_avx512bf16();

}  // namespace tinyserve::ops::cpu
