#include "ops/cuda/device_math.cuh"
#include "ops/cuda/kernels.h"

namespace tinyserve::ops::cuda {
namespace {

constexpr int kThreads = 256;

// fn(row, i) for every element of a [rows, width] matrix.
template <class Fn>
__global__ void each_kernel(int64_t width, Fn fn) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < width) fn(int64_t{blockIdx.y}, i);
}

template <class Fn>
void each(int64_t rows, int64_t width, cudaStream_t stream, Fn fn) {
  if (rows == 0 || width == 0) return;
  each_kernel<<<grid_for(width, rows, kThreads), kThreads, 0, stream>>>(width, fn);
}

}  // namespace

void to_bfloat16(const float* x, int64_t x_stride, int64_t rows, int64_t width, __nv_bfloat16* out, cudaStream_t stream) {
  each(rows, width, stream,
       [=] __device__(int64_t r, int64_t i) { out[r * width + i] = __float2bfloat16_rn(x[r * x_stride + i]); });
}

void start_with_bias(const float* bias, bool accumulate, int64_t rows, int64_t width, float* y, int64_t y_stride,
                     cudaStream_t stream) {
  if (!bias && accumulate) return;
  each(rows, width, stream, [=] __device__(int64_t r, int64_t i) {
    float& v = y[r * y_stride + i];
    v = (accumulate ? v : 0.0f) + (bias ? bias[i] : 0.0f);
  });
}

void gated_activation(Activation act, const float* x, int64_t x_stride, int64_t rows, int64_t width, float* out,
                      int64_t out_stride, cudaStream_t stream) {
  each(rows, width, stream, [=] __device__(int64_t r, int64_t i) {
    out[r * out_stride + i] = activate(act, x[r * x_stride + i]) * x[r * x_stride + width + i];
  });
}

void activation(Activation act, float* x, int64_t x_stride, int64_t rows, int64_t width, cudaStream_t stream) {
  each(rows, width, stream,
       [=] __device__(int64_t r, int64_t i) { x[r * x_stride + i] = activate(act, x[r * x_stride + i]); });
}

void add(float* x, int64_t x_stride, const float* y, int64_t y_stride, int64_t rows, int64_t width, cudaStream_t stream) {
  each(rows, width, stream, [=] __device__(int64_t r, int64_t i) { x[r * x_stride + i] += y[r * y_stride + i]; });
}

void softcap(float cap, float* x, int64_t x_stride, int64_t rows, int64_t width, cudaStream_t stream) {
  each(rows, width, stream,
       [=] __device__(int64_t r, int64_t i) { x[r * x_stride + i] = cap * tanhf(x[r * x_stride + i] / cap); });
}

void copy_pages(const KvLayer& cache, const int32_t* pairs, int64_t count, cudaStream_t stream) {
  const int64_t words = cache.page_elements() * static_cast<int64_t>(dtype_bytes(cache.dtype)) / 4;
  const auto copy = [&](std::byte* base) {
    auto* p = reinterpret_cast<uint32_t*>(base);
    each(count, words, stream, [=] __device__(int64_t r, int64_t i) {
      p[pairs[2 * r + 1] * words + i] = p[pairs[2 * r] * words + i];
    });
  };
  copy(cache.k);
  copy(cache.v);
}

}  // namespace tinyserve::ops::cuda
