#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "ops/ops.h"

namespace tinyserve::ops::cuda {

__device__ inline float load(const void* p, DType dtype, int64_t i) {
  if (dtype == DType::kF32) return static_cast<const float*>(p)[i];
  if (dtype == DType::kF16) return __half2float(static_cast<const __half*>(p)[i]);
  return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
}

__device__ inline void store(void* p, DType dtype, int64_t i, float value) {
  if (dtype == DType::kF32) static_cast<float*>(p)[i] = value;
  else static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16_rn(value);
}

__device__ inline float activate(Activation act, float x) {
  switch (act) {
    case Activation::kSilu: return x / (1.0f + expf(-x));
    case Activation::kGelu: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case Activation::kGeluTanh: return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case Activation::kRelu: return fmaxf(x, 0.0f);
  }
  return x;
}

// Sum over a warp; every lane gets it, added in the same tree always.
__device__ inline float warp_sum(float v) {
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
  return v;
}

// Sum over the block (at most 1,024 threads); every thread gets it.
__device__ inline float block_sum(float v) {
  __shared__ float partial[32];
  __syncthreads();  // a previous call's readers are done
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  __syncthreads();
  const int warps = (blockDim.x + 31) / 32;
  v = threadIdx.x % 32 < warps ? partial[threadIdx.x % 32] : 0.0f;
  return warp_sum(v);
}

inline dim3 grid_for(int64_t width, int64_t rows, int threads) {
  return dim3(static_cast<unsigned>((width + threads - 1) / threads), static_cast<unsigned>(rows));
}

}  // namespace tinyserve::ops::cuda
