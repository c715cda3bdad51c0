#pragma once
// Sparse attention of one row and KV head: the order of the steps and what passes between them. Only the kernels it calls depend
// on the instruction set.

#include <cstddef>
#include <cstdint>

#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/selection_kernel.h"
#include "ops/ops.h"

namespace tinyserve::ops::cpu {

/// Where the time of tasks goes, in ticks of the processor's counter; for benchmarks.
struct SelectionTrace {
  enum Phase { kQueries, kCoarse, kPages, kFine, kTokens, kMeans, kCoded, kExact, kAudit, kPhases };
  uint64_t ticks[kPhases] = {};
  static uint64_t now();  ///< 0 where there is no such counter
};

class SparseTask {
 public:
  static size_t scratch_bytes(const Limits& limits, const AttentionKernel& f32, const AttentionKernel& bf16);

  SparseTask(const SparseAttentionArgs& args, const BatchLayout& batch, const SparseRow& row, int32_t head,
             const SelectionKernel& kernel, const SelectionMaps& maps, const AttentionKernel& exact, std::byte* scratch,
             SelectionTrace* trace);
  void run(SparseStats* stats);

 private:
  int64_t token_at(int32_t chosen) const {  // of all tokens of the cache's layer and head
    return blocks_[fine_[chosen / kCodePage]] * kCodePage + chosen % kCodePage;
  }
  int64_t block(int32_t page) const { return int64_t{table_[page]} * a_.cache.kv_heads + head_; }
  const float* query(int32_t h) const { return a_.q + row_.row * a_.q_stride + (int64_t{head_} * heads_ + h) * d_; }
  template <class T>
  T* take(int64_t count) {
    return reinterpret_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
  }
  std::byte* take_bytes(size_t bytes);

  void lay_out();
  void load_queries();
  template <class Fn>
  void score_tiles(const int32_t* pages, int32_t count, bool fine, Fn&& each_head);
  void score_coarse();
  void raise(int32_t h, float reference, int32_t pages_done, int64_t sampled);
  void invert_totals();
  void choose_pages();
  void score_fine();
  void choose_tokens();
  void add_means();
  void tokens_ahead(int32_t part, int32_t parts, Lines& ahead) const;
  void add_coded();
  void attend_exact();
  int32_t position_of(int32_t chosen) const;
  void write_out(SparseStats* stats);
  void show_reads() const;
  float bytes_read() const;
  float mass_elsewhere();
  struct Drawn {
    int32_t at = -1;
    float probability = 0;
  };
  Drawn draw(const float* weights, int32_t n, double number) const;
  void draw_page();
  void draw_token();
  void audit(SparseStats& stats);

  const SparseAttentionArgs& a_;
  const SparseRow& row_;
  const int32_t* table_;
  const int32_t head_, heads_, d_;  // KV head; query heads that share it
  const SelectionKernel& kernel_;
  const SelectionMaps& maps_;
  const AttentionKernel& exact_;
  std::byte* next_;  // of the scratch

  int32_t begin_ = 0, end_ = 0, full_ = 0;  // pages: [begin_, end_) are the middle, [0, full_) full
  int32_t pages_ = 0, fine_pages_ = 0, mean_pages_ = 0;  // of the middle
  int32_t sample_every_ = 1;  // tile that the threshold of fine pages is found from
  int64_t page_stride_ = 0, each_stride_ = 0, sample_stride_ = 0, sampled_ = 0;
  int32_t num_exact_ = 0, num_coded_ = 0;  // chosen in the middle

  // Scratch. Logits are relative to reference_, a whole number: 2^(logit - reference) is exact to move.
  int64_t* blocks_ = nullptr;                                   // of the middle's pages
  AxesQuery* queries_ = nullptr;                                // [heads]
  int32_t* packed_ = nullptr;                                   // [head_dim / 4, heads], of kHeadsAtOnce heads after the other
  int32_t *coarse_start_ = nullptr, *fine_start_ = nullptr;     // [heads]
  float *step_ = nullptr, *base_ = nullptr, *reference_ = nullptr, *inverse_ = nullptr;  // [heads]
  int32_t* sums_ = nullptr;                                     // [kHeadsAtOnce, kTileTokens]
  float* mass_ = nullptr;                                       // [heads, page_stride_]: sums over the page's tokens
  int32_t* largest_ = nullptr;                                  // [heads, page_stride_]
  uint16_t *page_keys_ = nullptr, *token_keys_ = nullptr;       // [page_stride_], [each_stride_]
  int32_t* fine_ = nullptr;                                     // pages of the middle in fine grade
  float* each_ = nullptr;                                       // [heads, each_stride_]: the tokens of fine pages
  float* sample_ = nullptr;                                     // [heads, sample_stride_]: coarse, of every sample_every_th tile
  int32_t* mean_ = nullptr;                                     // pages of the middle whose means are read
  int32_t* touched_ = nullptr;                                  // fine pages of chosen tokens
  uint16_t* left_ = nullptr;                                    // of each fine page, the tokens that stay estimated
  int32_t *chosen_ = nullptr, *coded_ = nullptr;                // numbers among the tokens of fine pages
  float* acc_ = nullptr;                                        // [heads, padded_channels]: estimates and coded values
  float* plain_ = nullptr;                                      // [heads, head_dim]: exact values at coded weights
  float *estimated_ = nullptr, *coded_mass_ = nullptr;          // [heads]
  float *part_ = nullptr, *total_ = nullptr;                    // states of the exact part
  // An audit's (selection_audit.cc). Masses are relative to reference_.
  Drawn drawn_page_, drawn_token_;
  uint16_t drawn_left_ = 0;         // the page's tokens that stay estimated
  float* drawn_mass_ = nullptr;     // [heads], what the answer counts for the page
  float* page_weights_ = nullptr;   // [page_stride_]
  float* coded_weights_ = nullptr;  // [coded tokens]
  float* log_sums_ = nullptr;       // [heads], base 2, of the answer's exponentials
  SelectionTrace* trace_;
};

}  // namespace tinyserve::ops::cpu
