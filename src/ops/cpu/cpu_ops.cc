#include "ops/cpu/cpu_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/thread_pool.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/linear.h"
#include "ops/cpu/row_kernels.h"
#include "ops/cpu/selection.h"

namespace tinyserve::ops {
namespace {

using cpu::Isa;

// Elements below which a row-wise operation stays on the caller: about 2 us, what handing work over costs.
constexpr int64_t kInlineElements = 16384;
// Pieces into which long rows are cut for elementwise operations.
constexpr int64_t kPiece = 4096;

class CpuOps : public Ops {
 public:
  // The members take the addresses of their kernels here: construct under ScopedIsa(isa).
  CpuOps(ThreadPool& pool, const OpsOptions& options, Isa isa)
      : pool_(pool), isa_(isa), attention_(pool, isa), selection_(pool, isa), linear_(pool, options) {}

  std::string_view name() const override { return "cpu"; }
  std::string description() const override {
    return fmt::format("{}, linear {}, {} thread{}", cpu::isa_name(isa_), linear_.description(), pool_.num_threads(),
                       pool_.num_threads() == 1 ? "" : "s");
  }
  void reserve(const Limits& limits) override {
    attention_.reserve(limits);
    selection_.reserve(limits);
    linear_.reserve(limits);
  }

  std::unique_ptr<PackedWeight> pack_weight(std::span<const WeightSource> parts, WeightFormat format) override {
    return linear_.pack_weight(parts, format);
  }
  void linear(const LinearArgs& args) override { linear_.run(args); }

  void embed(const TensorView& table, std::span<const int32_t> ids, float scale, bool accumulate, float* out,
             int64_t out_stride) override {
    const int64_t width = table.shape[1];
    for_rows(static_cast<int64_t>(ids.size()), width, [&](int64_t r) {
      const std::byte* row = table.data + table.offset_bytes(ids[r] * width);
      float* to = out + r * out_stride;
      if (!table.blocks) {
        kernels_.embed(row, table.dtype, width, scale, accumulate, to);
        return;
      }
      const BlockLayout layout = block_layout(*table.blocks);
      float values[256];
      for (int64_t i = 0; i < width; i += layout.values, row += layout.bytes) {
        dequantize(*table.blocks, row, 1, values);
        kernels_.embed(reinterpret_cast<const std::byte*>(values), DType::kF32, layout.values, scale, accumulate, to + i);
      }
    });
  }

  void rms_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, float eps, float* out,
                int64_t out_stride) override {
    for_rows(rows, width,
             [&](int64_t r) { kernels_.rms_norm(x + r * x_stride, width, weight, eps, out + r * out_stride); });
  }

  void layer_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, const float* bias,
                  float eps, float* out, int64_t out_stride) override {
    for_rows(rows, width,
             [&](int64_t r) { kernels_.layer_norm(x + r * x_stride, width, weight, bias, eps, out + r * out_stride); });
  }

  void append_kv(const AppendArgs& args, const BatchLayout& batch) override {
    const int64_t width = int64_t{args.num_heads + 2 * args.cache.kv_heads} * args.cache.head_dim;
    for_rows(batch.num_tokens, width, [&](int64_t t) { kernels_.append(args, t, batch.slots[t]); });
  }

  void attention(const AttentionArgs& args, const BatchLayout& batch) override { attention_.run(args, batch); }

  bool has_selection() const override { return true; }
  void encode_pages(const EncodeArgs& args) override { selection_.encode(args); }
  void sparse_attention(const SparseAttentionArgs& args, const BatchLayout& batch) override {
    selection_.attention(args, batch);
  }

  void gated_activation(Activation act, const float* x, int64_t x_stride, int64_t rows, int64_t width, float* out,
                        int64_t out_stride) override {
    for_pieces(rows, width, 4, [&](int64_t r, int64_t begin, int64_t n) {
      const float* row = x + r * x_stride + begin;
      kernels_.activation(act, row, row + width, n, out + r * out_stride + begin);
    });
  }

  void activation(Activation act, float* x, int64_t x_stride, int64_t rows, int64_t width) override {
    for_pieces(rows, width, 4, [&](int64_t r, int64_t begin, int64_t n) {
      float* row = x + r * x_stride + begin;
      kernels_.activation(act, row, nullptr, n, row);
    });
  }

  void add(float* x, int64_t x_stride, const float* y, int64_t y_stride, int64_t rows, int64_t width) override {
    for_pieces(rows, width, 1, [&](int64_t r, int64_t begin, int64_t n) {
      kernels_.add(x + r * x_stride + begin, y + r * y_stride + begin, n);
    });
  }

  void softcap(float cap, float* x, int64_t x_stride, int64_t rows, int64_t width) override {
    for_pieces(rows, width, 4,
               [&](int64_t r, int64_t begin, int64_t n) { kernels_.softcap(cap, x + r * x_stride + begin, n); });
  }

  void copy_pages(const KvLayer& cache, std::span<const std::pair<int32_t, int32_t>> pairs) override {
    const int64_t bytes = cache.page_elements() * static_cast<int64_t>(dtype_bytes(cache.dtype));
    for_rows(static_cast<int64_t>(pairs.size()), 2 * cache.page_elements(), [&](int64_t i) {
      const auto [from, to] = pairs[i];
      std::memcpy(cache.k + to * bytes, cache.k + from * bytes, bytes);
      std::memcpy(cache.v + to * bytes, cache.v + from * bytes, bytes);
      copy_codes(cache, from, to);
    });
  }

 private:
  // fn(row) for each row, over the threads when there is enough of it.
  template <class Fn>
  void for_rows(int64_t rows, int64_t width, Fn&& fn) {
    const auto range = [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) fn(r);
    };
    if (rows * width < kInlineElements) range(0, rows, 0);
    else pool_.parallel_for(rows, 1, range);
  }

  // fn(row, begin, count) for pieces of rows; for operations in which elements do not see each other. `weight`: cost of an
  // element against that of an addition.
  template <class Fn>
  void for_pieces(int64_t rows, int64_t width, int64_t weight, Fn&& fn) {
    if (rows * width * weight < kInlineElements) {
      for (int64_t r = 0; r < rows; ++r) fn(r, int64_t{0}, width);
      return;
    }
    const int64_t pieces = (width + kPiece - 1) / kPiece;
    pool_.parallel_for(rows * pieces, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = i % pieces * kPiece;
        fn(i / pieces, at, std::min(kPiece, width - at));
      }
    });
  }

  ThreadPool& pool_;
  Isa isa_;
  cpu::RowKernels kernels_;
  cpu::CpuAttention attention_;
  cpu::CpuSelection selection_;
  CpuLinear linear_;
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops(ThreadPool& pool, const OpsOptions& options, Isa isa) {
  isa = std::min(isa, cpu::detect_isa());
  const cpu::ScopedIsa scope(isa);
  return std::make_unique<CpuOps>(pool, options, isa);
}

std::unique_ptr<Ops> make_cpu_ops(ThreadPool& pool, const OpsOptions& options) {
  return make_cpu_ops(pool, options, cpu::detect_isa());
}

}  // namespace tinyserve::ops
