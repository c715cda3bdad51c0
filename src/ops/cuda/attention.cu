// Paged attention, one block a (token, query head, split of the context): each of 4 warps takes every fourth position with
// an online softmax, lanes over channels; the warps, then the splits, are merged in order.
#include "ops/cuda/device_math.cuh"
#include "ops/cuda/kernels.h"

namespace tinyserve::ops::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxPerLane = 8;  // head_dim <= 256

__global__ void attention_kernel(AttentionArgs a, BatchLayout batch, const int32_t* seq_of_token, float* partial) {
  const int32_t t = blockIdx.x, h = blockIdx.y, split = blockIdx.z, d = a.cache.head_dim;
  const int32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int32_t last = batch.positions[t], window_first = a.window > 0 ? max(0, last - a.window + 1) : 0;
  const int32_t first = max(window_first, split * kAttentionSplit), end = min(last + 1, (split + 1) * kAttentionSplit);
  float* out = partial + ((int64_t{t} * a.num_heads + h) * gridDim.z + split) * (d + 2);
  if (first >= end) {
    if (threadIdx.x == 0) out[0] = -INFINITY, out[1] = 0.0f;
    return;
  }
  const int32_t kv_head = h / (a.num_heads / a.cache.kv_heads), page_size = a.cache.page_size;
  const int32_t* pages = batch.page_table + int64_t{seq_of_token[t]} * batch.page_table_stride;
  float q[kMaxPerLane], sum[kMaxPerLane];
  for (int j = 0; j < kMaxPerLane; ++j) {
    const int32_t i = lane + 32 * j;
    q[j] = i < d ? a.q[t * a.q_stride + int64_t{h} * d + i] * a.scale : 0.0f;
    sum[j] = 0.0f;
  }
  float largest = -INFINITY, total = 0.0f;
  for (int32_t p = first + warp; p < end; p += kWarps) {
    const int64_t base = ((int64_t{pages[p / page_size]} * a.cache.kv_heads + kv_head) * page_size + p % page_size) * d;
    float score = 0.0f;
    for (int j = 0; j < kMaxPerLane; ++j)
      if (lane + 32 * j < d) score += q[j] * load(a.cache.k, a.cache.dtype, base + lane + 32 * j);
    score = warp_sum(score);
    if (a.softcap > 0) score = a.softcap * tanhf(score / a.softcap);
    const float next = fmaxf(largest, score), keep = expf(largest - next), weight = expf(score - next);
    largest = next;
    total = total * keep + weight;
    for (int j = 0; j < kMaxPerLane; ++j)
      if (lane + 32 * j < d) sum[j] = sum[j] * keep + weight * load(a.cache.v, a.cache.dtype, base + lane + 32 * j);
  }
  __shared__ float shared_sum[kWarps][32 * kMaxPerLane], shared_largest[kWarps], shared_total[kWarps];
  for (int j = 0; j < kMaxPerLane; ++j) shared_sum[warp][lane + 32 * j] = sum[j];
  if (lane == 0) shared_largest[warp] = largest, shared_total[warp] = total;
  __syncthreads();
  float top = -INFINITY, mass = 0.0f;
  for (int w = 0; w < kWarps; ++w) top = fmaxf(top, shared_largest[w]);
  for (int w = 0; w < kWarps; ++w) mass += shared_total[w] * expf(shared_largest[w] - top);
  for (int32_t i = threadIdx.x; i < d; i += blockDim.x) {
    float value = 0.0f;
    for (int w = 0; w < kWarps; ++w) value += shared_sum[w][i] * expf(shared_largest[w] - top);
    out[2 + i] = value;
  }
  if (threadIdx.x == 0) out[0] = top, out[1] = mass;
}

__global__ void merge_kernel(AttentionArgs a, const float* partial, int32_t splits) {
  const int32_t t = blockIdx.x, h = blockIdx.y, d = a.cache.head_dim;
  const float* in = partial + (int64_t{t} * a.num_heads + h) * splits * (d + 2);
  float top = -INFINITY, mass = 0.0f;
  for (int s = 0; s < splits; ++s) top = fmaxf(top, in[int64_t{s} * (d + 2)]);
  for (int s = 0; s < splits; ++s) mass += in[int64_t{s} * (d + 2) + 1] * expf(in[int64_t{s} * (d + 2)] - top);
  for (int32_t i = threadIdx.x; i < d; i += blockDim.x) {
    float value = 0.0f;
    for (int s = 0; s < splits; ++s) {
      const float* one = in + int64_t{s} * (d + 2);
      if (one[1] > 0.0f) value += one[2 + i] * expf(one[0] - top);  // an empty split's sums were not written
    }
    a.out[t * a.out_stride + int64_t{h} * d + i] = value / mass;
  }
}

}  // namespace

void attention(const AttentionArgs& args, const BatchLayout& batch, const int32_t* seq_of_token, int32_t max_kv_len,
               float* partial, cudaStream_t stream) {
  if (batch.num_tokens == 0) return;
  const int32_t splits = (max_kv_len + kAttentionSplit - 1) / kAttentionSplit;
  attention_kernel<<<dim3(batch.num_tokens, args.num_heads, splits), 32 * kWarps, 0, stream>>>(args, batch, seq_of_token,
                                                                                              partial);
  merge_kernel<<<dim3(batch.num_tokens, args.num_heads), 64, 0, stream>>>(args, partial, splits);
}

}  // namespace tinyserve::ops::cuda
