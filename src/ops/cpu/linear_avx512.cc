// linear() kernels for AVX-512 with BF16 and VNNI (Zen 4, Cooper Lake, Sapphire Rapids and later). Highway 1.0.3 has no
// target for these two, so they are written with intrinsics; F32 weights use Highway's AVX-512 kernel.
//
// BF16: rows are rounded to BF16 and VDPBF16PS adds pairs of products, lanes being outputs. INT8: rows are rounded to
// signed codes per group of 32, VPDPBUSD takes the weights' unsigned codes, and a start value of -128 sum(x) undoes
// their offset, so a group's sum is exact before it is scaled.

#include <immintrin.h>

#include <algorithm>
#include <limits>

#include "hwy/base.h"
#include "ops/cpu/linear_kernels.h"
#include "ops/cpu/linear_tiles.h"

HWY_PUSH_ATTRIBUTES("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni")
namespace tinyserve::ops::linear {
namespace {

template <int R, int V>
inline __attribute__((always_inline)) void load_acc(const Pass& p, __m512 (&acc)[R][V]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      acc[r][v] = p.first ? _mm512_setzero_ps() : _mm512_loadu_ps(p.acc + r * kPanelWidth + 16 * v);
}

template <int R, int V>
inline __attribute__((always_inline)) void store_acc(const Pass& p, const __m512 (&acc)[R][V]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(p.acc + r * kPanelWidth + 16 * v, acc[r][v]);
}

struct Bf16Tile {
  static constexpr int kRows = 6, kLanes = 16;  // 6 x 4 sums, 4 weights and 1 input of 32 registers
  static constexpr int vectors(int) { return 4; }

  template <int R, int V, int kLines>
  static void run(const Pass& p, int column) {
    __m512 acc[R][V];
    load_acc<R, V>(p, acc);
    const std::byte *w = p.w + 4 * column, *fetch = kLines > 0 ? p.prefetch : p.w, *x = p.x;
    const int64_t row = p.x_row_bytes;
    for (int64_t pair = 0; pair < p.groups * (kGroup / 2); ++pair, w += 256, x += 4, fetch += 256) {
      prefetch_step<kLines>(fetch);
      __m512bh wv[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) wv[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(w + 64 * v));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512bh xv =
            reinterpret_cast<__m512bh>(_mm512_set1_epi32(*reinterpret_cast<const int32_t*>(x + r * row)));
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], wv[v], xv);
      }
    }
    store_acc<R, V>(p, acc);
  }
};

void prepare_bf16(const float* x, int64_t width, std::byte* out) {
  for (int64_t k = 0; k < width; k += kGroup, out += 2 * kGroup) {
    const int64_t rest = width - k;
    const auto mask = [&](int64_t from) {
      return static_cast<__mmask16>(rest >= from + 16 ? 0xFFFF : rest <= from ? 0 : (1 << (rest - from)) - 1);
    };
    const __m512 low = _mm512_maskz_loadu_ps(mask(0), x + k), high = _mm512_maskz_loadu_ps(mask(16), x + k + 16);
    _mm512_storeu_si512(out, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
  }
}

// A row's group of 32 inputs.
struct Int8Group {
  int32_t codes[8];  // signed bytes
  float scale;
  int32_t correction;  // -128 * sum of codes
};

// Up to 3 rows the F32 sums stay in registers beside the integer ones. Beyond, they live in L1: the alternative, half
// as many outputs at a time, reads the weights twice, which costs 40% while they come from memory.
struct Int8Tile {
  static constexpr int kRows = 6, kLanes = 16;
  static constexpr int vectors(int) { return 4; }

  template <int R, int V, int kLines>
  static void run(const Pass& p, int) {
    constexpr bool kInRegisters = R <= 3;
    __m512 acc[R][V];
    if (kInRegisters) load_acc<R, V>(p, acc);
    const std::byte *w = p.w, *fetch = kLines > 0 ? p.prefetch : p.w, *x = p.x;
    for (int64_t g = 0; g < p.groups; ++g, x += sizeof(Int8Group)) {
      const auto group = [&](int r) { return reinterpret_cast<const Int8Group*>(x + r * p.x_row_bytes); };
      const std::byte *codes = w, *scales = w + kGroup * kPanelWidth;
      w += weight_group_bytes(WeightFormat::kInt8);
      __m512i dot[R][V];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) dot[r][v] = _mm512_set1_epi32(group(r)->correction);
#pragma GCC unroll 8
      for (int quad = 0; quad < 8; ++quad, codes += 256, fetch += 256) {
        prefetch_step<kLines>(fetch);
        __m512i wv[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) wv[v] = _mm512_loadu_si512(codes + 64 * v);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const __m512i xv = _mm512_set1_epi32(group(r)->codes[quad]);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) dot[r][v] = _mm512_dpbusd_epi32(dot[r][v], wv[v], xv);
        }
      }
      if (kLines > 0 && p.prefetch_scales) prefetch_step<2>(fetch);
      fetch += 2 * kPanelWidth;
      const bool zero = p.first && g == 0;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + 32 * v));
        const __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          float* at = p.acc + r * kPanelWidth + 16 * v;
          const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[r][v]), scale);
          const __m512 before = kInRegisters ? acc[r][v] : zero ? _mm512_setzero_ps() : _mm512_loadu_ps(at);
          const __m512 sum = _mm512_fmadd_ps(product, _mm512_set1_ps(group(r)->scale), before);
          if (kInRegisters)
            acc[r][v] = sum;
          else
            _mm512_storeu_ps(at, sum);
        }
      }
    }
    if (kInRegisters) store_acc<R, V>(p, acc);
  }
};

// As in linear_highway.cc, whose comments say why.
void prepare_int8(const float* x, int64_t width, std::byte* out) {
  Int8Group* to = reinterpret_cast<Int8Group*>(out);
  for (int64_t k = 0; k < width; k += kGroup, ++to) {
    const int64_t rest = width - k;
    const auto mask = [&](int64_t from) {
      return static_cast<__mmask16>(rest >= from + 16 ? 0xFFFF : rest <= from ? 0 : (1 << (rest - from)) - 1);
    };
    const __m512 low = _mm512_maskz_loadu_ps(mask(0), x + k), high = _mm512_maskz_loadu_ps(mask(16), x + k + 16);
    const __m512i bits =
        _mm512_max_epi32(_mm512_castps_si512(_mm512_abs_ps(low)), _mm512_castps_si512(_mm512_abs_ps(high)));
    const float maximum = __builtin_bit_cast(float, _mm512_reduce_max_epi32(bits));
    const float scale = maximum / 127.0f;
    const __m512 inverse = _mm512_set1_ps(scale < std::numeric_limits<float>::min() ? 0.0f : 1.0f / scale);
    __m512i code_low = _mm512_set1_epi32(1), code_high = code_low;
    if (maximum <= std::numeric_limits<float>::max()) {
      code_low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
      code_high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to->codes), _mm512_cvtepi32_epi8(code_low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to->codes + 4), _mm512_cvtepi32_epi8(code_high));
    to->scale = scale;
    to->correction = -128 * _mm512_reduce_add_epi32(_mm512_add_epi32(code_low, code_high));
  }
}

}  // namespace
}  // namespace tinyserve::ops::linear
HWY_POP_ATTRIBUTES

namespace tinyserve::ops::linear {

void append_avx512_kernels(std::vector<const Kernels*>& out) {
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vnni")) return;
  std::vector<const Kernels*> highway;
  append_highway_kernels(highway);
  static Kernels kernels;
  kernels = *highway.front();  // AVX-512: both processors' features imply it
  kernels.name = "AVX-512 BF16 VNNI";
  kernels.bf16 = {2 * kGroup, prepare_bf16, run_block<Bf16Tile>, 6};
  kernels.int8 = {sizeof(Int8Group), prepare_int8, run_block<Int8Tile>, 6, 2 * weight_group_bytes(WeightFormat::kInt8)};
  out.push_back(&kernels);
}

}  // namespace tinyserve::ops::linear
