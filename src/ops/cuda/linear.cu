// y += x W^T. Each output is one sum over K in one fixed order, whatever the number of rows: batch invariant. cuBLAS, which
// is not, serves the other case (cuda_ops.cu).
#include <mma.h>

#include "ops/cuda/device_math.cuh"
#include "ops/cuda/kernels.h"

namespace tinyserve::ops::cuda {
namespace {

constexpr int kTileRows = 32, kTileOut = 64, kTileK = 32;
constexpr int kPad = 8;  // breaks bank conflicts of the 64-byte rows

// One block of 4 warps makes a [32 rows, 64 outputs] tile; each warp two 16x16 products side by side.
__global__ void gemm_bfloat16_kernel(const __nv_bfloat16* x, const __nv_bfloat16* w, int64_t rows, int64_t out, int64_t in,
                                     float* y, int64_t y_stride) {
  using namespace nvcuda;
  __shared__ __nv_bfloat16 xs[kTileRows][kTileK + kPad];
  __shared__ __nv_bfloat16 ws[kTileOut][kTileK + kPad];
  __shared__ float ys[kTileRows][kTileOut + 4];
  const int64_t out0 = int64_t{blockIdx.x} * kTileOut, row0 = int64_t{blockIdx.y} * kTileRows;
  const int warp = threadIdx.x / 32, warp_row = warp / 2 * 16, warp_out = warp % 2 * 32;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum[2];
  wmma::fill_fragment(sum[0], 0.0f);
  wmma::fill_fragment(sum[1], 0.0f);
  const __nv_bfloat16 zero = __float2bfloat16_rn(0.0f);
  for (int64_t k0 = 0; k0 < in; k0 += kTileK) {
    for (int i = threadIdx.x; i < kTileRows * kTileK; i += blockDim.x) {
      const int64_t r = row0 + i / kTileK, k = k0 + i % kTileK;
      xs[i / kTileK][i % kTileK] = r < rows && k < in ? x[r * in + k] : zero;
    }
    for (int i = threadIdx.x; i < kTileOut * kTileK; i += blockDim.x) {
      const int64_t o = out0 + i / kTileK, k = k0 + i % kTileK;
      ws[i / kTileK][i % kTileK] = o < out && k < in ? w[o * in + k] : zero;
    }
    __syncthreads();
    for (int k = 0; k < kTileK; k += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> a;
      wmma::load_matrix_sync(a, &xs[warp_row][k], kTileK + kPad);
      for (int j = 0; j < 2; ++j) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::col_major> b;
        wmma::load_matrix_sync(b, &ws[warp_out + 16 * j][k], kTileK + kPad);
        wmma::mma_sync(sum[j], a, b, sum[j]);
      }
    }
    __syncthreads();
  }
  for (int j = 0; j < 2; ++j)
    wmma::store_matrix_sync(&ys[warp_row][warp_out + 16 * j], sum[j], kTileOut + 4, wmma::mem_row_major);
  __syncthreads();
  for (int i = threadIdx.x; i < kTileRows * kTileOut; i += blockDim.x) {
    const int64_t r = row0 + i / kTileOut, o = out0 + i % kTileOut;
    if (r < rows && o < out) y[r * y_stride + o] += ys[i / kTileOut][i % kTileOut];
  }
}

// One warp an output, lanes over K; weight(o, k) yields W[o, k].
template <class Weight>
__global__ void gemm_by_warps_kernel(const float* x, int64_t x_stride, int64_t out, int64_t in, float* y, int64_t y_stride,
                                     Weight weight) {
  const int64_t o = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  if (o >= out) return;
  const float* row = x + blockIdx.y * x_stride;
  float sum = 0;
  for (int64_t k = threadIdx.x % 32; k < in; k += 32) sum += row[k] * weight(o, k);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) y[blockIdx.y * y_stride + o] += sum;
}

template <class Weight>
void gemm_by_warps(const float* x, int64_t x_stride, int64_t rows, int64_t out, int64_t in, float* y, int64_t y_stride,
                   cudaStream_t stream, Weight weight) {
  if (rows == 0) return;
  const dim3 grid(static_cast<unsigned>((out + 7) / 8), static_cast<unsigned>(rows));
  gemm_by_warps_kernel<<<grid, 256, 0, stream>>>(x, x_stride, out, in, y, y_stride, weight);
}

}  // namespace

void gemm_bfloat16(const __nv_bfloat16* x, const __nv_bfloat16* w, int64_t rows, int64_t out, int64_t in, float* y,
                   int64_t y_stride, cudaStream_t stream) {
  if (rows == 0) return;
  const dim3 grid(static_cast<unsigned>((out + kTileOut - 1) / kTileOut),
                  static_cast<unsigned>((rows + kTileRows - 1) / kTileRows));
  gemm_bfloat16_kernel<<<grid, 128, 0, stream>>>(x, w, rows, out, in, y, y_stride);
}

void gemm_float32(const float* x, int64_t x_stride, const float* w, int64_t rows, int64_t out, int64_t in, float* y,
                  int64_t y_stride, cudaStream_t stream) {
  gemm_by_warps(x, x_stride, rows, out, in, y, y_stride, stream,
                [=] __device__(int64_t o, int64_t k) { return w[o * in + k]; });
}

void gemm_int8(const float* x, int64_t x_stride, const int8_t* q, const __nv_bfloat16* scales, int64_t rows, int64_t out,
               int64_t in, float* y, int64_t y_stride, cudaStream_t stream) {
  const int64_t groups = (in + kInt8Group - 1) / kInt8Group;
  gemm_by_warps(x, x_stride, rows, out, in, y, y_stride, stream, [=] __device__(int64_t o, int64_t k) {
    return static_cast<float>(q[o * in + k]) * __bfloat162float(scales[o * groups + k / kInt8Group]);
  });
}

}  // namespace tinyserve::ops::cuda
