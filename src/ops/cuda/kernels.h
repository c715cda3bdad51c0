#pragma once
// Launchers of the CUDA kernels: device pointers, counts and a stream; no framework types. Each launcher is asynchronous
// and leaves launch errors to the caller's cudaGetLastError().

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "ops/ops.h"

namespace tinyserve::ops::cuda {

void embed(const void* table, DType dtype, int64_t width, const int32_t* ids, int64_t count, float scale, bool accumulate,
           float* out, int64_t out_stride, cudaStream_t stream);

void rms_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, float eps, float* out,
              int64_t out_stride, cudaStream_t stream);
void layer_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, const float* bias,
                float eps, float* out, int64_t out_stride, cudaStream_t stream);

/// x to BF16, rows packed at stride `width`.
void to_bfloat16(const float* x, int64_t x_stride, int64_t rows, int64_t width, __nv_bfloat16* out, cudaStream_t stream);
/// y[r] = (accumulate ? y[r] : 0) + bias, before a GEMM that adds to y.
void start_with_bias(const float* bias, bool accumulate, int64_t rows, int64_t width, float* y, int64_t y_stride,
                     cudaStream_t stream);
/// y[rows, out] += x[rows, in] W^T on tensor cores, K in one fixed order whatever the number of rows.
void gemm_bfloat16(const __nv_bfloat16* x, const __nv_bfloat16* w, int64_t rows, int64_t out, int64_t in, float* y,
                   int64_t y_stride, cudaStream_t stream);
/// The same in F32 (no TF32).
void gemm_float32(const float* x, int64_t x_stride, const float* w, int64_t rows, int64_t out, int64_t in, float* y,
                  int64_t y_stride, cudaStream_t stream);
/// The same with INT8 weights: q [out, in], scales [out, ceil(in / kInt8Group)].
void gemm_int8(const float* x, int64_t x_stride, const int8_t* q, const __nv_bfloat16* scales, int64_t rows, int64_t out,
               int64_t in, float* y, int64_t y_stride, cudaStream_t stream);

void append_kv(const AppendArgs& args, const BatchLayout& batch, cudaStream_t stream);

/// Positions of the context are cut into splits of kAttentionSplit, whoever asks, so that a row's result does not
/// depend on the batch. partial: [num_tokens, num_heads, splits, head_dim + 2] of F32, splits = ceil(max_kv / split).
constexpr int32_t kAttentionSplit = 1024;
void attention(const AttentionArgs& args, const BatchLayout& batch, const int32_t* seq_of_token, int32_t max_kv_len,
               float* partial, cudaStream_t stream);

void gated_activation(Activation act, const float* x, int64_t x_stride, int64_t rows, int64_t width, float* out,
                      int64_t out_stride, cudaStream_t stream);
void activation(Activation act, float* x, int64_t x_stride, int64_t rows, int64_t width, cudaStream_t stream);
void add(float* x, int64_t x_stride, const float* y, int64_t y_stride, int64_t rows, int64_t width, cudaStream_t stream);
void softcap(float cap, float* x, int64_t x_stride, int64_t rows, int64_t width, cudaStream_t stream);
/// pairs: [count, 2] page numbers.
void copy_pages(const KvLayer& cache, const int32_t* pairs, int64_t count, cudaStream_t stream);

}  // namespace tinyserve::ops::cuda
