#include "ops/cuda/cuda_ops.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "ops/cuda/kernels.h"
#include "ops/int8_format.h"

namespace tinyserve::ops {
namespace {

// A failure in the middle of a step (lost GPU, kernel fault) leaves nothing to continue with.
void check(cudaError_t status) {
  if (status != cudaSuccess) [[unlikely]]
    TS_CHECK(false, cudaGetErrorString(status));
}
void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    TS_CHECK(false, cublasGetStatusString(status));
}

struct DeviceMemory : Memory {
  explicit DeviceMemory(size_t size_bytes) {
    size = size_bytes;
    if (size == 0) return;
    void* p = nullptr;
    if (const cudaError_t status = cudaMalloc(&p, size); status != cudaSuccess) {
      cudaGetLastError();
      size_t free_bytes = 0, total = 0;
      cudaMemGetInfo(&free_bytes, &total);
      throw InputError(fmt::format("the GPU refuses {:.1f} MiB ({}); {:.1f} of {:.1f} MiB are free", size / 1048576.0,
                                   cudaGetErrorString(status), free_bytes / 1048576.0, total / 1048576.0));
    }
    data = static_cast<std::byte*>(p);
    check(cudaMemset(p, 0, size));
    check(cudaStreamSynchronize(nullptr));  // the backend's stream does not wait for the default one
  }
  ~DeviceMemory() override { cudaFree(data); }
};

struct CudaWeight : PackedWeight {
  std::unique_ptr<DeviceMemory> values;  // [out, in] of the format's type
  std::unique_ptr<DeviceMemory> scales;  // kInt8: [out, ceil(in / kInt8Group)]
};

// Scratch that grows only in reserve().
template <class T>
T* grow(std::unique_ptr<DeviceMemory>& memory, int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  if (!memory || memory->size < bytes) memory = std::make_unique<DeviceMemory>(bytes);
  return memory->as<T>();
}

class CudaOps : public Ops {
 public:
  explicit CudaOps(const OpsOptions& options) : options_(options) {
    int count = 0;
    if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0)
      throw InputError(fmt::format("no usable NVIDIA GPU: {}; use --backend cpu",
                                   status == cudaSuccess ? "none was found" : cudaGetErrorString(status)));
    check(cudaGetDeviceProperties(&properties_, 0));
    if (properties_.major < 8)
      throw InputError(fmt::format("{} has compute capability {}.{}; 8.0 or newer is needed; use --backend cpu",
                                   properties_.name, properties_.major, properties_.minor));
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    check(cublasCreate(&cublas_));
    check(cublasSetStream(cublas_, stream_));
  }
  ~CudaOps() override {
    cudaStreamSynchronize(stream_);
    cublasDestroy(cublas_);
    cudaStreamDestroy(stream_);
  }

  std::string_view name() const override { return "cuda"; }
  std::string description() const override {
    return fmt::format("{}, compute capability {}.{}{}", properties_.name, properties_.major, properties_.minor,
                       options_.batch_invariant ? ", batch invariant" : "");
  }

  void reserve(const Limits& l) override {
    const int64_t splits = (l.max_context + cuda::kAttentionSplit - 1) / cuda::kAttentionSplit;
    grow<__nv_bfloat16>(rounded_, l.max_tokens * l.max_width);
    grow<float>(partial_, l.max_tokens * l.max_heads * splits * (l.max_head_dim + 2));
    const int64_t pages = (l.max_context + 15) / 16 + 1;
    grow<int32_t>(layout_, l.max_seqs * (pages + 2) + 4 * l.max_tokens + 64);
    grow<int64_t>(slots_, l.max_tokens);
    grow<int32_t>(ids_, l.max_tokens);
  }

  std::unique_ptr<Memory> allocate(size_t size_bytes) override { return std::make_unique<DeviceMemory>(size_bytes); }
  bool on_host() const override { return false; }
  void upload(void* to, const void* from, size_t size_bytes) override {
    check(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyHostToDevice, stream_));
    check(cudaStreamSynchronize(stream_));
  }
  void download(void* to, const void* from, size_t size_bytes) override {
    check(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToHost, stream_));
    check(cudaStreamSynchronize(stream_));
  }
  TensorView place(const TensorView& table, std::unique_ptr<Memory>& owner) override {
    owner = std::make_unique<DeviceMemory>(table.size_bytes());
    upload(owner->data, table.data, table.size_bytes());
    TensorView placed = table;
    placed.data = owner->data;
    return placed;
  }

  BatchLayout begin_step(const BatchLayout& host) override {
    BatchLayout device = host;
    int32_t* p = grow<int32_t>(layout_, int64_t{host.num_seqs} * (host.page_table_stride + 2) + 4 * host.num_tokens + 64);
    const auto put = [&](const int32_t* from, int64_t count) {
      check(cudaMemcpyAsync(p, from, count * sizeof(int32_t), cudaMemcpyHostToDevice, stream_));
      p += count;
      return p - count;
    };
    seq_of_token_host_.clear();
    max_kv_len_ = 0;
    for (int32_t s = 0; s < host.num_seqs; ++s) {
      seq_of_token_host_.insert(seq_of_token_host_.end(), host.cu_query_lens[s + 1] - host.cu_query_lens[s], s);
      max_kv_len_ = std::max(max_kv_len_, host.kv_lens[s]);
    }
    device.cu_query_lens = put(host.cu_query_lens, host.num_seqs + 1);
    device.kv_lens = put(host.kv_lens, host.num_seqs);
    device.page_table = put(host.page_table, int64_t{host.num_seqs} * host.page_table_stride);
    device.positions = put(host.positions, host.num_tokens);
    seq_of_token_ = put(seq_of_token_host_.data(), host.num_tokens);
    int64_t* slots = grow<int64_t>(slots_, host.num_tokens);
    check(cudaMemcpyAsync(slots, host.slots, host.num_tokens * sizeof(int64_t), cudaMemcpyHostToDevice, stream_));
    device.slots = slots;
    return device;
  }

  std::unique_ptr<PackedWeight> pack_weight(std::span<const WeightSource> parts, WeightFormat format) override {
    auto packed = std::make_unique<CudaWeight>();
    if (format == WeightFormat::kBlocks) format = WeightFormat::kBF16;
    packed->format = format;
    std::vector<float> values;  // [out, in]
    for (const WeightSource& part : parts) {
      const int64_t out = part.view.shape[part.transposed ? 1 : 0], in = part.view.shape[part.transposed ? 0 : 1];
      std::vector<float> raw(static_cast<size_t>(out * in));
      part.view.read(0, out * in, raw.data());
      if (part.transposed) {
        std::vector<float> turned(raw.size());
        for (int64_t o = 0; o < out; ++o)
          for (int64_t i = 0; i < in; ++i) turned[o * in + i] = raw[i * out + o];
        raw.swap(turned);
      }
      values.insert(values.end(), raw.begin(), raw.end());
      packed->out_features += out;
      packed->in_features = in;
    }
    const auto keep = [&](const void* data, size_t bytes) {
      auto memory = std::make_unique<DeviceMemory>(bytes);
      upload(memory->data, data, bytes);
      packed->size_bytes += bytes;
      return memory;
    };
    if (format == WeightFormat::kF32) packed->values = keep(values.data(), values.size() * sizeof(float));
    if (format == WeightFormat::kBF16) {
      std::vector<BFloat16> rounded(values.size());
      std::transform(values.begin(), values.end(), rounded.begin(), [](float v) { return tinyserve::to_bfloat16(v); });
      packed->values = keep(rounded.data(), rounded.size() * sizeof(BFloat16));
    }
    if (format == WeightFormat::kInt8) {
      const int64_t in = packed->in_features, groups = (in + kInt8Group - 1) / kInt8Group;
      std::vector<int8_t> q(values.size());
      std::vector<BFloat16> scales(static_cast<size_t>(packed->out_features * groups));
      for (int64_t o = 0; o < packed->out_features; ++o)
        for (int64_t g = 0; g < groups; ++g) {
          const int64_t begin = o * in + g * kInt8Group, end = o * in + std::min(in, (g + 1) * kInt8Group);
          const BFloat16 scale = scales[o * groups + g] = int8_scale(values.data() + begin, end - begin);
          for (int64_t i = begin; i < end; ++i) q[i] = static_cast<int8_t>(int8_code(values[i], to_float(scale)));
        }
      packed->values = keep(q.data(), q.size());
      packed->scales = keep(scales.data(), scales.size() * sizeof(BFloat16));
    }
    return packed;
  }

  void embed(const TensorView& table, std::span<const int32_t> ids, float scale, bool accumulate, float* out,
             int64_t out_stride) override {
    int32_t* device_ids = grow<int32_t>(ids_, static_cast<int64_t>(ids.size()));
    check(cudaMemcpyAsync(device_ids, ids.data(), ids.size_bytes(), cudaMemcpyHostToDevice, stream_));
    cuda::embed(table.data, table.dtype, table.shape[1], device_ids, static_cast<int64_t>(ids.size()), scale, accumulate,
                out, out_stride, stream_);
    check(cudaGetLastError());
  }
  void rms_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, float eps, float* out,
                int64_t out_stride) override {
    cuda::rms_norm(x, x_stride, rows, width, weight, eps, out, out_stride, stream_);
    check(cudaGetLastError());
  }
  void layer_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, const float* bias,
                  float eps, float* out, int64_t out_stride) override {
    cuda::layer_norm(x, x_stride, rows, width, weight, bias, eps, out, out_stride, stream_);
    check(cudaGetLastError());
  }

  void linear(const LinearArgs& a) override {
    const auto& w = static_cast<const CudaWeight&>(*a.weight);
    const int64_t out = w.out_features, in = w.in_features;
    if (a.rows == 0) return;
    cuda::start_with_bias(a.bias, a.accumulate, a.rows, out, a.y, a.y_stride, stream_);
    if (w.format == WeightFormat::kInt8) {
      cuda::gemm_int8(a.x, a.x_stride, w.values->as<int8_t>(), w.scales->as<__nv_bfloat16>(), a.rows, out, in, a.y, a.y_stride,
                      stream_);
    } else if (w.format == WeightFormat::kF32 && options_.batch_invariant) {
      cuda::gemm_float32(a.x, a.x_stride, w.values->as<float>(), a.rows, out, in, a.y, a.y_stride, stream_);
    } else if (w.format == WeightFormat::kF32) {
      const float one = 1.0f;
      check(cublasSgemm(cublas_, CUBLAS_OP_T, CUBLAS_OP_N, out, a.rows, in, &one, w.values->as<float>(), in, a.x,
                        a.x_stride, &one, a.y, a.y_stride));
    } else {
      auto* x = grow<__nv_bfloat16>(rounded_, a.rows * in);
      cuda::to_bfloat16(a.x, a.x_stride, a.rows, in, x, stream_);
      const auto* values = w.values->as<__nv_bfloat16>();
      if (options_.batch_invariant) {
        cuda::gemm_bfloat16(x, values, a.rows, out, in, a.y, a.y_stride, stream_);
      } else {
        const float one = 1.0f;
        check(cublasGemmEx(cublas_, CUBLAS_OP_T, CUBLAS_OP_N, out, a.rows, in, &one, values, CUDA_R_16BF, in, x,
                           CUDA_R_16BF, in, &one, a.y, CUDA_R_32F, a.y_stride, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
      }
    }
    check(cudaGetLastError());
  }

  void append_kv(const AppendArgs& args, const BatchLayout& batch) override {
    cuda::append_kv(args, batch, stream_);
    check(cudaGetLastError());
  }
  void attention(const AttentionArgs& args, const BatchLayout& batch) override {
    const int64_t splits = (max_kv_len_ + cuda::kAttentionSplit - 1) / cuda::kAttentionSplit;
    float* partial =
        grow<float>(partial_, int64_t{batch.num_tokens} * args.num_heads * splits * (args.cache.head_dim + 2));
    cuda::attention(args, batch, seq_of_token_, max_kv_len_, partial, stream_);
    check(cudaGetLastError());
  }
  void gated_activation(Activation act, const float* x, int64_t x_stride, int64_t rows, int64_t width, float* out,
                        int64_t out_stride) override {
    cuda::gated_activation(act, x, x_stride, rows, width, out, out_stride, stream_);
    check(cudaGetLastError());
  }
  void activation(Activation act, float* x, int64_t x_stride, int64_t rows, int64_t width) override {
    cuda::activation(act, x, x_stride, rows, width, stream_);
    check(cudaGetLastError());
  }
  void add(float* x, int64_t x_stride, const float* y, int64_t y_stride, int64_t rows, int64_t width) override {
    cuda::add(x, x_stride, y, y_stride, rows, width, stream_);
    check(cudaGetLastError());
  }
  void softcap(float cap, float* x, int64_t x_stride, int64_t rows, int64_t width) override {
    cuda::softcap(cap, x, x_stride, rows, width, stream_);
    check(cudaGetLastError());
  }
  void copy_pages(const KvLayer& cache, std::span<const std::pair<int32_t, int32_t>> pairs) override {
    if (pairs.empty()) return;
    static_assert(sizeof(std::pair<int32_t, int32_t>) == 2 * sizeof(int32_t));
    int32_t* device_pairs = grow<int32_t>(pairs_, 2 * static_cast<int64_t>(pairs.size()));
    check(cudaMemcpyAsync(device_pairs, pairs.data(), pairs.size_bytes(), cudaMemcpyHostToDevice, stream_));
    cuda::copy_pages(cache, device_pairs, static_cast<int64_t>(pairs.size()), stream_);
    check(cudaGetLastError());
  }

 private:
  OpsOptions options_;
  cudaDeviceProp properties_{};
  cudaStream_t stream_ = nullptr;
  cublasHandle_t cublas_ = nullptr;
  std::unique_ptr<DeviceMemory> rounded_, partial_, layout_, slots_, ids_, pairs_;
  std::vector<int32_t> seq_of_token_host_;
  const int32_t* seq_of_token_ = nullptr;  // of the current step
  int32_t max_kv_len_ = 0;                 // of the current step
};

}  // namespace

std::unique_ptr<Ops> make_cuda_ops(ThreadPool&, const OpsOptions& options) { return std::make_unique<CudaOps>(options); }

}  // namespace tinyserve::ops
