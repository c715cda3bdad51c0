#include "ops/cuda/device_math.cuh"
#include "ops/cuda/kernels.h"

namespace tinyserve::ops::cuda {
namespace {

__global__ void rms_norm_kernel(const float* x, int64_t x_stride, int64_t width, const float* weight, float eps, float* out,
                                int64_t out_stride) {
  const float* in = x + blockIdx.x * x_stride;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) sum += in[i] * in[i];
  const float inverse = rsqrtf(block_sum(sum) / width + eps);
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) out[blockIdx.x * out_stride + i] = in[i] * inverse * weight[i];
}

__global__ void layer_norm_kernel(const float* x, int64_t x_stride, int64_t width, const float* weight, const float* bias,
                                  float eps, float* out, int64_t out_stride) {
  const float* in = x + blockIdx.x * x_stride;
  float sum = 0, squares = 0;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) sum += in[i];
  const float mean = block_sum(sum) / width;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) squares += (in[i] - mean) * (in[i] - mean);
  const float inverse = rsqrtf(block_sum(squares) / width + eps);
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
    out[blockIdx.x * out_stride + i] = (in[i] - mean) * inverse * weight[i] + (bias ? bias[i] : 0.0f);
}

int threads_for(int64_t width) { return width >= 1024 ? 256 : width >= 256 ? 128 : 32; }

}  // namespace

void rms_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, float eps, float* out,
              int64_t out_stride, cudaStream_t stream) {
  if (rows == 0) return;
  rms_norm_kernel<<<static_cast<unsigned>(rows), threads_for(width), 0, stream>>>(x, x_stride, width, weight, eps, out,
                                                                                  out_stride);
}

void layer_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, const float* bias,
                float eps, float* out, int64_t out_stride, cudaStream_t stream) {
  if (rows == 0) return;
  layer_norm_kernel<<<static_cast<unsigned>(rows), threads_for(width), 0, stream>>>(x, x_stride, width, weight, bias, eps,
                                                                                    out, out_stride);
}

}  // namespace tinyserve::ops::cuda
