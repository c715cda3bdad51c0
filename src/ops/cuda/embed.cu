#include "ops/cuda/device_math.cuh"
#include "ops/cuda/kernels.h"

namespace tinyserve::ops::cuda {
namespace {

__global__ void embed_kernel(const void* table, DType dtype, int64_t width, const int32_t* ids, float scale,
                             bool accumulate, float* out, int64_t out_stride) {
  const int64_t row = ids[blockIdx.x];
  float* o = out + blockIdx.x * out_stride;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
    o[i] = (accumulate ? o[i] : 0.0f) + scale * load(table, dtype, row * width + i);
}

}  // namespace

void embed(const void* table, DType dtype, int64_t width, const int32_t* ids, int64_t count, float scale, bool accumulate,
           float* out, int64_t out_stride, cudaStream_t stream) {
  if (count == 0) return;
  embed_kernel<<<static_cast<unsigned>(count), 128, 0, stream>>>(table, dtype, width, ids, scale, accumulate, out,
                                                                 out_stride);
}

}  // namespace tinyserve::ops::cuda
