// linear() kernels in portable SIMD: AVX-512 without BF16 or VNNI, and AVX2. BF16 weights are widened in registers and
// multiplied in F32; the rows stay F32.

#include <algorithm>
#include <cstring>
#include <limits>

#include "ops/cpu/linear_kernels.h"
#include "ops/cpu/linear_tiles.h"

// AVX3_DL brings nothing here that linear_avx512.cc does not do better.
#define HWY_DISABLED_TARGETS (HWY_AVX3_DL | HWY_SSE4 | HWY_SSSE3)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/linear_highway.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3  // the static target, the last pass, is below what we support
HWY_BEFORE_NAMESPACE();
namespace tinyserve::ops::linear::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::CappedTag<float, 16> df;
constexpr hn::RebindToSigned<decltype(df)> di;
constexpr hn::RebindToUnsigned<decltype(df)> du;
using VF = hn::Vec<decltype(df)>;
using VI = hn::Vec<decltype(di)>;
constexpr int kVectorLanes = HWY_TARGET == HWY_AVX3 ? 16 : 8;
constexpr bool kManyRegisters = kVectorLanes == 16;  // 32 vector registers instead of 16

constexpr int kFloatRows = 6;
constexpr int kInt8Rows = kManyRegisters ? 6 : 3;
// Vectors of outputs beside each other in a tile of so many rows: what the register file holds.
constexpr int float_vectors(int rows) {
  return kManyRegisters ? 4 : rows == 1 ? std::min<int>(8, kPanelWidth / kVectorLanes) : rows == 2 ? 4 : 2;
}
constexpr int int8_vectors(int rows) { return kManyRegisters && rows <= 2 ? 4 : rows == 1 ? 4 : 2; }

template <int R, int V>
HWY_INLINE void load_acc(const Pass& p, VF (&acc)[R][V]) {
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      acc[r][v] = p.first ? hn::Zero(df) : hn::LoadU(df, p.acc + r * kPanelWidth + v * kVectorLanes);
}

template <int R, int V>
HWY_INLINE void store_acc(const Pass& p, const VF (&acc)[R][V]) {
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) hn::StoreU(acc[r][v], df, p.acc + r * kPanelWidth + v * kVectorLanes);
}

struct F32Tile {
  static constexpr int kRows = kFloatRows, kLanes = kVectorLanes;
  static constexpr int vectors(int rows) { return float_vectors(rows); }

  template <int R, int V, int kLines>
  static void run(const Pass& p, int column) {
    VF acc[R][V];
    load_acc<R, V>(p, acc);
    const float* w = reinterpret_cast<const float*>(p.w) + column;
    for (int64_t k = 0; k < p.groups * kGroup; ++k, w += kPanelWidth) {
      if (kLines > 0) prefetch_step<kLines>(p.prefetch + k * 256);
      VF wv[V];
      for (int v = 0; v < V; ++v) wv[v] = hn::LoadU(df, w + v * kLanes);
      for (int r = 0; r < R; ++r) {
        const VF x = hn::Set(df, reinterpret_cast<const float*>(p.x + r * p.x_row_bytes)[k]);
        for (int v = 0; v < V; ++v) acc[r][v] = hn::MulAdd(wv[v], x, acc[r][v]);
      }
    }
    store_acc<R, V>(p, acc);
  }
};

struct Bf16Tile {
  static constexpr int kRows = kFloatRows, kLanes = kVectorLanes;
  static constexpr int vectors(int rows) { return float_vectors(rows); }

  template <int R, int V, int kLines>
  static void run(const Pass& p, int column) {
    VF acc[R][V];
    load_acc<R, V>(p, acc);
    const auto odd = hn::Set(du, 0xFFFF0000u);
    const uint32_t* w = reinterpret_cast<const uint32_t*>(p.w) + column;
    for (int64_t pair = 0; pair < p.groups * (kGroup / 2); ++pair, w += kPanelWidth) {
      if (kLines > 0) prefetch_step<kLines>(p.prefetch + pair * 256);
      VF x0[R], x1[R];
      for (int r = 0; r < R; ++r) {
        const float* x = reinterpret_cast<const float*>(p.x + r * p.x_row_bytes) + 2 * pair;
        x0[r] = hn::Set(df, x[0]);
        x1[r] = hn::Set(df, x[1]);
      }
      for (int v = 0; v < V; ++v) {
        const auto bits = hn::LoadU(du, w + v * kLanes);
        const VF w0 = hn::BitCast(df, hn::ShiftLeft<16>(bits)), w1 = hn::BitCast(df, hn::And(bits, odd));
        for (int r = 0; r < R; ++r) acc[r][v] = hn::MulAdd(w1, x1[r], hn::MulAdd(w0, x0[r], acc[r][v]));
      }
    }
    store_acc<R, V>(p, acc);
  }
};

// A row's group of 32 inputs: codes as 16-bit pairs the way multiply-add wants them, their scale, and what undoes the
// weights' offset of 128.
struct Int8Group {
  int32_t pairs[8][2];  // per quad of inputs: (x0, x2) and (x1, x3)
  float scale;
  int32_t correction;  // -128 * sum of codes
};

struct Int8Tile {
  static constexpr int kRows = kInt8Rows, kLanes = kVectorLanes;
  static constexpr int vectors(int rows) { return int8_vectors(rows); }

  template <int R, int V, int kLines>
  static void run(const Pass& p, int column) {
    constexpr hn::Repartition<int16_t, decltype(df)> di16;
    constexpr hn::Rebind<uint16_t, decltype(df)> du16;
    VF acc[R][V];
    load_acc<R, V>(p, acc);
    const auto low = hn::Set(du, 0x00FF00FFu);
    for (int64_t g = 0; g < p.groups; ++g) {
      const std::byte* group = p.w + g * weight_group_bytes(WeightFormat::kInt8);
      const uint32_t* codes = reinterpret_cast<const uint32_t*>(group) + column;
      const uint16_t* scales = reinterpret_cast<const uint16_t*>(group + kGroup * kPanelWidth) + column;
      const Int8Group* x[R];
      VI dot[R][V];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        x[r] = reinterpret_cast<const Int8Group*>(p.x + r * p.x_row_bytes) + g;
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) dot[r][v] = hn::Set(di, x[r]->correction);
      }
      const std::byte* fetch = (kLines > 0 ? p.prefetch : p.w) + g * weight_group_bytes(WeightFormat::kInt8);
      for (int quad = 0; quad < 8; ++quad, codes += kPanelWidth, fetch += 256) {
        prefetch_step<kLines>(fetch);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          const auto bits = hn::LoadU(du, codes + v * kLanes);
          const auto w02 = hn::BitCast(di16, hn::And(bits, low));
          const auto w13 = hn::BitCast(di16, hn::And(hn::ShiftRight<8>(bits), low));
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            VI unused = hn::Zero(di);  // x86 leaves the second sum alone
            dot[r][v] = hn::ReorderWidenMulAccumulate(di, w02, hn::BitCast(di16, hn::Set(di, x[r]->pairs[quad][0])),
                                                      dot[r][v], unused);
            dot[r][v] = hn::ReorderWidenMulAccumulate(di, w13, hn::BitCast(di16, hn::Set(di, x[r]->pairs[quad][1])),
                                                      dot[r][v], unused);
          }
        }
      }
      if (kLines > 0 && p.prefetch_scales) prefetch_step<2>(fetch);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        const VF scale = hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(du16, scales + v * kLanes))));
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
          acc[r][v] = hn::MulAdd(hn::Mul(hn::ConvertTo(df, dot[r][v]), scale), hn::Set(df, x[r]->scale), acc[r][v]);
      }
    }
    store_acc<R, V>(p, acc);
  }
};

void prepare_f32(const float* x, int64_t width, std::byte* out) {
  float* o = reinterpret_cast<float*>(out);
  std::copy_n(x, width, o);
  std::fill(o + width, o + (width + kGroup - 1) / kGroup * kGroup, 0.0f);
}

// scale = max|x| / 127. The maximum is taken over the bits, where NaN and infinity are the largest: they end in the
// scale and make the row's outputs non-finite.
void prepare_int8(const float* x, int64_t width, std::byte* out) {
  Int8Group* groups = reinterpret_cast<Int8Group*>(out);
  for (int64_t g = 0; g * kGroup < width; ++g) {
    alignas(64) float in[kGroup] = {};
    alignas(64) int32_t code[kGroup];
    std::copy_n(x + g * kGroup, std::min(kGroup, width - g * kGroup), in);
    auto largest = hn::Zero(di);
    for (int i = 0; i < kGroup; i += kVectorLanes)
      largest = hn::Max(largest, hn::BitCast(di, hn::Abs(hn::Load(df, in + i))));
    const float maximum = hn::GetLane(hn::BitCast(df, hn::MaxOfLanes(di, largest)));
    const float scale = maximum / 127.0f;
    // Below the normal range 1 / scale overflows; such inputs count as zero.
    const auto inverse = hn::Set(df, scale < std::numeric_limits<float>::min() ? 0.0f : 1.0f / scale);
    const bool finite = maximum <= std::numeric_limits<float>::max();
    for (int i = 0; i < kGroup; i += kVectorLanes)
      hn::Store(finite ? hn::NearestInt(hn::Mul(hn::Load(df, in + i), inverse)) : hn::Set(di, 1), di, code + i);
    int32_t sum = 0;
    for (int32_t c : code) sum += c;
    for (int quad = 0; quad < 8; ++quad)
      for (int half = 0; half < 2; ++half)
        groups[g].pairs[quad][half] = static_cast<int32_t>((static_cast<uint32_t>(code[4 * quad + half]) & 0xFFFFu) |
                                                           (static_cast<uint32_t>(code[4 * quad + half + 2]) << 16));
    groups[g].scale = scale;
    groups[g].correction = -128 * sum;
  }
}

void store(const StoreArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* acc = a.acc + r * kPanelWidth;
    float* y = a.y + r * a.y_stride;
    int64_t n = 0;
    for (; n + kVectorLanes <= a.columns; n += kVectorLanes) {
      VF v = hn::LoadU(df, acc + n);
      if (a.bias) v = hn::Add(v, hn::LoadU(df, a.bias + n));
      if (a.accumulate) v = hn::Add(hn::LoadU(df, y + n), v);
      hn::StoreU(v, df, y + n);
    }
    for (; n < a.columns; ++n) {
      const float v = a.bias ? acc[n] + a.bias[n] : acc[n];
      y[n] = a.accumulate ? y[n] + v : v;
    }
  }
}

constexpr Kernels kKernels{kManyRegisters ? "AVX-512" : "AVX2",
                           {kGroup * 4, prepare_f32, run_block<F32Tile>, kManyRegisters ? kFloatRows : 1},
                           {kGroup * 4, prepare_f32, run_block<Bf16Tile>, kManyRegisters ? kFloatRows : 1},
                           {sizeof(Int8Group), prepare_int8, run_block<Int8Tile>, kManyRegisters ? 2 : 0},
                           store};

}  // namespace tinyserve::ops::linear::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace tinyserve::ops::linear {

void append_highway_kernels(std::vector<const Kernels*>& out) {
  const int64_t supported = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_AVX3
  if (supported & HWY_AVX3) out.push_back(&N_AVX3::kKernels);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (supported & HWY_AVX2) out.push_back(&N_AVX2::kKernels);
#endif
}

}  // namespace tinyserve::ops::linear
#endif
