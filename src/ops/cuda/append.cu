#include "ops/cuda/device_math.cuh"
#include "ops/cuda/kernels.h"

namespace tinyserve::ops::cuda {
namespace {

// One block a (token, head); heads run over query heads, then key heads. Threads over channels.
__global__ void append_kernel(AppendArgs a, BatchLayout batch) {
  const int32_t t = blockIdx.x, h = blockIdx.y, d = a.cache.head_dim;
  const bool is_key = h >= a.num_heads;
  float* x = a.qkv + t * a.qkv_stride + int64_t{h} * d;
  const float* norm = is_key ? a.k_norm : a.q_norm;
  extern __shared__ float row[];
  float sum = 0;
  for (int32_t i = threadIdx.x; i < d; i += blockDim.x) sum += x[i] * x[i];
  const float inverse = norm ? rsqrtf(block_sum(sum) / d + a.norm_eps) : 1.0f;
  for (int32_t i = threadIdx.x; i < d; i += blockDim.x) row[i] = norm ? x[i] * inverse * norm[i] : x[i];
  __syncthreads();
  const int32_t half = a.cos ? a.rotary_dim / 2 : 0;
  const int64_t page = batch.slots[t] / a.cache.page_size, offset = batch.slots[t] % a.cache.page_size;
  const int64_t to =
      ((page * a.cache.kv_heads + (h - a.num_heads)) * a.cache.page_size + offset) * d;  // of a key head
  for (int32_t i = threadIdx.x; i < d; i += blockDim.x) {
    float value = row[i];
    if (i < half) value = row[i] * a.cos[int64_t{t} * half + i] - row[i + half] * a.sin[int64_t{t} * half + i];
    else if (i < 2 * half)
      value = row[i] * a.cos[int64_t{t} * half + i - half] + row[i - half] * a.sin[int64_t{t} * half + i - half];
    x[i] = value;
    if (!is_key) continue;
    store(a.cache.k, a.cache.dtype, to + i, value);
    store(a.cache.v, a.cache.dtype, to + i, x[int64_t{a.cache.kv_heads} * d + i]);
  }
}

}  // namespace

void append_kv(const AppendArgs& args, const BatchLayout& batch, cudaStream_t stream) {
  if (batch.num_tokens == 0) return;
  const dim3 grid(batch.num_tokens, args.num_heads + args.cache.kv_heads);
  const int threads = args.cache.head_dim >= 128 ? 128 : args.cache.head_dim >= 64 ? 64 : 32;
  append_kernel<<<grid, threads, args.cache.head_dim * sizeof(float), stream>>>(args, batch);
}

}  // namespace tinyserve::ops::cuda
