#include "ops/cpu/linear.h"

#include <algorithm>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/check.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "ops/cpu/block_panels.h"
#include "ops/cpu/linear_kernels.h"
#include "ops/cpu/linear_onednn.h"
#include "ops/cpu/linear_pack.h"

namespace tinyserve::ops {
namespace linear {
namespace {

// Rows prepared at a time: bounds scratch; the weights are read again for each such chunk, which its arithmetic hides.
constexpr int64_t kChunkRows = 512;
// Rows a thread carries through one panel, so that its sums (64 KiB) stay in L2 beside the weights.
constexpr int64_t kTileRows = 256;
// Weights that several passes of rows share: they come back from L2.
constexpr int64_t kBlockBytes = 64 << 10;
// Below so many bytes of weights times rows the caller works alone: some 2 us, no more than meeting the others costs
// when they are busy elsewhere.
constexpr int64_t kAloneBytes = 64 << 10;
// Up to so many inputs every thread prepares all rows itself rather than meet the others a second time.
constexpr int64_t kPrepareAlone = 16 << 10;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

const std::vector<const Kernels*>& available_kernels() {
  static const std::vector<const Kernels*> all = [] {
    std::vector<const Kernels*> v;
    append_avx512_kernels(v);
    append_highway_kernels(v);
    return v;
  }();
  if (all.empty()) throw InputError("the cpu backend needs a processor with AVX2 and FMA");
  return all;
}

}  // namespace linear

using namespace linear;

struct CpuLinear::Impl {
  ThreadPool& pool;
  OpsOptions options;
  const Kernels& kernels;
  const BlockKernels& blocks = block_kernels(kernels);
  OneDnn onednn{pool.num_threads()};

  int64_t max_rows = 0, max_groups = 0;
  AlignedBuffer prepared;  // rows of a chunk, or every thread's own copy
  AlignedBuffer sums;      // [threads][kTileRows][64]
  AlignedBuffer unpacked;  // [threads][kUnpackedBytes], with weights in blocks
  struct alignas(64) Stamp {
    uint64_t call = 0;
  };
  std::vector<Stamp> prepared_in{static_cast<size_t>(pool.num_threads())};  // the call whose rows a thread's copy has
  uint64_t call = 0;

  void grow() {
    int64_t group_bytes = blocks.x_group_bytes;
    for (const FormatKernels* f : {&kernels.f32, &kernels.bf16, &kernels.int8})
      group_bytes = std::max(group_bytes, f->x_group_bytes);
    // Alone, a thread prepares kPrepareAlone padded inputs at most, or one row; plus rounding up to cache lines.
    const int64_t alone = pool.num_threads() * (std::max(kPrepareAlone / kGroup, max_groups) + 1) * group_bytes;
    const int64_t bytes =
        std::max(std::min(std::max<int64_t>(max_rows, 1), kChunkRows) * max_groups * group_bytes, alone);
    if (static_cast<int64_t>(prepared.size()) < bytes) prepared = AlignedBuffer(static_cast<size_t>(bytes));
    const int64_t sum_bytes = pool.num_threads() * kTileRows * kPanelWidth * int64_t{sizeof(float)};
    if (static_cast<int64_t>(sums.size()) < sum_bytes) sums = AlignedBuffer(static_cast<size_t>(sum_bytes));
  }

  void run_rows(const LinearArgs& a) {
    if (a.weight->format == WeightFormat::kBlocks) {
      const auto& w = static_cast<const BlockWeight&>(*a.weight);
      run_chunk(a, w, blocks.x_group_bytes, blocks.prepare);
    } else {
      const auto& w = static_cast<const PanelWeight&>(*a.weight);
      run_chunk(a, w, kernels.of(w.format).x_group_bytes, kernels.of(w.format).prepare);
    }
  }
  template <class Weight>
  void run_chunk(const LinearArgs& a, const Weight& w, int64_t x_group_bytes,
                 void (*prepare_row)(const float* x, int64_t width, std::byte* out));
  void run_panels(const LinearArgs& a, const PanelWeight& w, const std::byte* x, int64_t begin, int64_t end, int thread);
  void run_panels(const LinearArgs& a, const BlockWeight& w, const std::byte* x, int64_t begin, int64_t end, int thread) {
    run_block_panels(blocks, kernels, a, w, x, begin, end, kTileRows, sums.as<float>() + thread * kTileRows * kPanelWidth,
                     unpacked.data() + thread * kUnpackedBytes);
  }
};

template <class Weight>
void CpuLinear::Impl::run_chunk(const LinearArgs& a, const Weight& w, int64_t x_group_bytes,
                                void (*prepare_row)(const float* x, int64_t width, std::byte* out)) {
  const int64_t row_bytes = w.groups * x_group_bytes;
  const auto prepare = [&](std::byte* out, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) prepare_row(a.x + r * a.x_stride, w.in_features, out + r * row_bytes);
  };
  if (static_cast<int64_t>(w.size_bytes) * a.rows <= kAloneBytes) {
    prepare(prepared.data(), 0, a.rows);
    run_panels(a, w, prepared.data(), 0, w.panels, 0);
  } else if (a.rows * w.groups * kGroup <= kPrepareAlone || a.rows == 1) {
    const int64_t own = round_up(a.rows * row_bytes, 64);
    ++call;
    pool.parallel_for(w.panels, 1, [&](int64_t begin, int64_t end, int thread) {
      std::byte* x = prepared.data() + thread * own;
      if (prepared_in[thread].call != call) prepare(x, 0, a.rows);
      prepared_in[thread].call = call;
      run_panels(a, w, x, begin, end, thread);
    });
  } else {
    pool.parallel_for(a.rows, 1, [&](int64_t begin, int64_t end, int) { prepare(prepared.data(), begin, end); });
    pool.parallel_for(w.panels, 1, [&](int64_t begin, int64_t end, int thread) {
      run_panels(a, w, prepared.data(), begin, end, thread);
    });
  }
}

void CpuLinear::Impl::run_panels(const LinearArgs& a, const PanelWeight& w, const std::byte* x, int64_t begin,
                                 int64_t end, int thread) {
  const FormatKernels& f = kernels.of(w.format);
  const int64_t group_bytes = weight_group_bytes(w.format), row_bytes = w.groups * f.x_group_bytes;
  const bool one_pass = a.rows <= f.one_pass_rows;
  const int64_t blocks = one_pass ? 1 : std::max<int64_t>(1, w.groups * group_bytes / kBlockBytes);
  float* acc = sums.as<float>() + thread * kTileRows * kPanelWidth;
  for (int64_t p = begin; p < end; ++p) {
    const std::byte* panel = w.data.data() + p * w.panel_bytes();
    const int64_t n = p * kPanelWidth;
    for (int64_t row = 0, rows; row < a.rows; row += rows) {
      rows = std::min(kTileRows, a.rows - row);
      const bool by_onednn = w.onednn && rows >= OneDnnTile::kRows;
      if (by_onednn) w.onednn->run(panel, x + row * row_bytes, acc, thread), rows = OneDnnTile::kRows;
      for (int64_t b = 0; b < blocks && !by_onednn; ++b) {
        const int64_t from = w.groups * b / blocks, to = w.groups * (b + 1) / blocks;
        BlockArgs block{panel + from * group_bytes,
                        to - from,
                        x + row * row_bytes + from * f.x_group_bytes,
                        row_bytes,
                        rows,
                        acc,
                        b == 0};
        // A single pass is left to the hardware's prefetcher, which software far ahead of it only confuses (BF16 rows
        // fell from 99% to 60% of the read bandwidth at 4 KiB); several passes fetch the next block while they compute.
        if (one_pass)
          block.prefetch = a.rows == 1 && f.one_row_prefetch > 0 ? block.w + f.one_row_prefetch : nullptr;
        else if (row == 0)
          block.prefetch = panel + to * group_bytes;
        f.block(block);
      }
      kernels.store({acc, rows, std::min(kPanelWidth, w.out_features - n), a.bias ? a.bias + n : nullptr,
                     a.y + row * a.y_stride + n, a.y_stride, a.accumulate});
    }
  }
}

CpuLinear::CpuLinear(ThreadPool& pool, const OpsOptions& options)
    : CpuLinear(pool, options, *linear::available_kernels().front()) {}
CpuLinear::CpuLinear(ThreadPool& pool, const OpsOptions& options, const linear::Kernels& kernels)
    : impl_(new Impl{pool, options, kernels}) {}
CpuLinear::~CpuLinear() = default;

std::string CpuLinear::description() const {
  return std::string(impl_->kernels.name) + (impl_->options.batch_invariant ? "" : ", oneDNN from 64 rows");
}

void CpuLinear::reserve(const Limits& limits) {
  impl_->max_rows = std::max(impl_->max_rows, limits.max_tokens);
  impl_->grow();
}

std::unique_ptr<PackedWeight> CpuLinear::pack_weight(std::span<const WeightSource> parts, WeightFormat format) {
  if (format == WeightFormat::kBlocks) {
    auto weight = pack_blocks(impl_->pool, parts);
    const auto bytes = static_cast<size_t>(impl_->pool.num_threads() * kUnpackedBytes);
    if (impl_->unpacked.size() < bytes) impl_->unpacked = AlignedBuffer(bytes);
    impl_->max_groups = std::max(impl_->max_groups, weight->groups);
    impl_->grow();
    return weight;
  }
  auto weight = linear::pack(impl_->pool, parts, format);
  // oneDNN reads the prepared rows as they are, if they have the weights' type.
  const int64_t x_bytes = impl_->kernels.of(format).x_group_bytes;
  if (!impl_->options.batch_invariant && x_bytes * kPanelWidth == weight_group_bytes(format))
    weight->onednn = impl_->onednn.tile(format, weight->groups);
  impl_->max_groups = std::max(impl_->max_groups, weight->groups);
  impl_->grow();
  return weight;
}

void CpuLinear::run(const LinearArgs& args) {
  const int64_t chunk = std::clamp<int64_t>(impl_->max_rows, 1, kChunkRows);
  for (int64_t row = 0; row < args.rows; row += chunk) {
    LinearArgs part = args;
    part.x += row * args.x_stride;
    part.y += row * args.y_stride;
    part.rows = std::min(chunk, args.rows - row);
    impl_->run_rows(part);
  }
}

}  // namespace tinyserve::ops
