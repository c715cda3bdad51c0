// Sums of weighted values from their codes, with AVX-512 VBMI and BF16.
//
// Two rows (pages or tokens) go together: VDPBF16PS takes w_a v_a + w_b v_b. Of a block of 64 channels, 128-bit lane l of every vector
// holds channels of 16 l .. 16 l + 15, which share a scale: vector k those from 16 l + 4 k on. So one vector of weights, weight
// times scale in each lane, serves all four.

#include <hwy/base.h>
#include <immintrin.h>

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "ops/cpu/selection_kernel.h"

namespace tinyserve::ops::cpu {

#if defined(__x86_64__)

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,bmi,bmi2,avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx512vbmi")
namespace {
namespace vbmi_sums {

#define TS_INLINE inline __attribute__((always_inline))

struct alignas(64) Bytes {
  uint8_t at[64];
};

TS_INLINE __m512i load(const Bytes& b) { return _mm512_load_si512(b.at); }
TS_INLINE __m512 as_float(__m512i v) { return _mm512_castsi512_ps(v); }

struct Pair {
  __m512i values[4];  // small odd multiples of 1/2, exact in BF16
  __m512 scales[2];   // of row a and row b
};
static_assert(sizeof(Pair) * kPairs <= kSelectionScratchBytes);

constexpr Bytes bf16_bytes(int count, float middle, int shift) {
  Bytes b{};
  for (int i = 0; i < 64; ++i)
    b.at[i] = static_cast<uint8_t>(std::bit_cast<uint32_t>(static_cast<float>(i % count) - middle) >> shift);
  return b;
}
constexpr Bytes kValueHigh = bf16_bytes(8, 3.5f, 24), kValueLow = bf16_bytes(8, 3.5f, 16);
constexpr Bytes kMeanHigh = bf16_bytes(16, 7.5f, 24), kMeanLow = bf16_bytes(16, 7.5f, 16);

// Codes of 8 channels a lane, row a and b in turn, to the vectors of their first and second four channels.
TS_INLINE void look_up(__m512i codes, const Bytes& high, const Bytes& low, __m512i& first, __m512i& second) {
  const __m512i h = _mm512_permutexvar_epi8(codes, load(high)), l = _mm512_permutexvar_epi8(codes, load(low));
  first = _mm512_unpacklo_epi8(l, h);
  second = _mm512_unpackhi_epi8(l, h);
}

// Lane l: 8 bytes of row a and of row b, in turn, of the l-th 8 bytes of each.
constexpr Bytes interleaved() {
  Bytes b{};
  for (int i = 0; i < 64; ++i) b.at[i] = static_cast<uint8_t>(i % 2 * 32 + i / 16 * 8 + i % 16 / 2);
  return b;
}
constexpr Bytes kInterleaved = interleaved();

// Four BF16 in the low 64 bits, one to each lane, as F32.
TS_INLINE __m512 spread_scales(uint64_t four) {
  const __m512i words = _mm512_cvtepu16_epi64(_mm_cvtsi64_si128(static_cast<int64_t>(four)));  // unused upper half
  const __m512i index = _mm512_set_epi32(6, 6, 6, 6, 4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0);
  return as_float(_mm512_slli_epi32(_mm512_permutexvar_epi32(index, words), 16));
}

TS_INLINE void load_means(const uint8_t* a, const uint8_t* b, int head_dim, int channel, Pair& to) {
  const int bytes = std::min(32, (head_dim - channel) / 2);
  const __mmask32 mask = _bzhi_u32(~0u, static_cast<uint32_t>(bytes));
  const __m256i x = _mm256_maskz_loadu_epi8(mask, a + channel / 2), y = _mm256_maskz_loadu_epi8(mask, b + channel / 2);
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(x), y, 1);
  const __m512i mixed = _mm512_permutexvar_epi8(load(kInterleaved), both);
  look_up(mixed, kMeanHigh, kMeanLow, to.values[0], to.values[1]);  // the table repeats: upper bits do not matter
  look_up(_mm512_srli_epi16(mixed, 4), kMeanHigh, kMeanLow, to.values[2], to.values[3]);
  const auto scales = [&](const uint8_t* p) __attribute__((always_inline)) {
    uint64_t four = 0;
    if (bytes == 32) __builtin_memcpy(&four, p + head_dim / 2 + channel / 8, 8);
    else __builtin_memcpy(&four, p + head_dim / 2 + channel / 8, static_cast<size_t>(bytes / 4));
    return spread_scales(four);
  };
  to.scales[0] = scales(a);
  to.scales[1] = scales(b);
}

constexpr Bytes kShift3 = [] {
  Bytes b{};
  for (int i = 0; i < 64; ++i) b.at[i] = static_cast<uint8_t>(3 * (i % 16));
  return b;
}();

TS_INLINE void load_values(const uint64_t* a, const uint64_t* b, int head_dim, int channel, Pair& to) {
  const int words = std::min(4, (head_dim - channel) / 16);
  const __mmask8 mask = static_cast<__mmask8>(_bzhi_u32(0xff, static_cast<uint32_t>(words)));
  const __m512i twice = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
  const auto row = [&](const uint64_t* p) __attribute__((always_inline)) {
    return _mm512_permutexvar_epi64(twice, _mm512_castsi256_si512(_mm256_maskz_loadu_epi64(mask, p + channel / 16)));
  };
  const __m512i x = row(a), y = row(b), shift = load(kShift3);
  const __m512i codes_a = _mm512_multishift_epi64_epi8(shift, x), codes_b = _mm512_multishift_epi64_epi8(shift, y);
  look_up(_mm512_unpacklo_epi8(codes_a, codes_b), kValueHigh, kValueLow, to.values[0], to.values[1]);
  look_up(_mm512_unpackhi_epi8(codes_a, codes_b), kValueHigh, kValueLow, to.values[2], to.values[3]);
  const __m512i upper = _mm512_set1_epi64(static_cast<int64_t>(0xFFFF000000000000));
  const auto scale = [&](__m512i v) __attribute__((always_inline)) {
    return as_float(_mm512_shuffle_epi32(_mm512_and_si512(v, upper), _MM_PERM_DDBB));  // the upper half, twice
  };
  to.scales[0] = scale(x);
  to.scales[1] = scale(y);
}

// acc[H heads, 4 vectors] of one block of channels. weights[i] of rows 2i and 2i + 1.
template <int H>
TS_INLINE void accumulate(const Pair* pairs, int count, const float* weights, int64_t stride, float* acc, int64_t acc_stride) {
  alignas(64) static constexpr uint16_t kTurns[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i turns = _mm512_load_si512(kTurns);
  __m512 sums[H][4];
  for (int h = 0; h < H; ++h)
    for (int k = 0; k < 4; ++k) sums[h][k] = _mm512_loadu_ps(acc + h * acc_stride + 16 * k);
  for (int i = 0; i < count; ++i) {
    const Pair& p = pairs[i];
    for (int h = 0; h < H; ++h) {
      const float* w = weights + h * stride + 2 * i;
      const __m512 a = _mm512_mul_ps(p.scales[0], _mm512_set1_ps(w[0])), b = _mm512_mul_ps(p.scales[1], _mm512_set1_ps(w[1]));
      const __m512i w16 = _mm512_permutexvar_epi16(turns, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a)));
      for (int k = 0; k < 4; ++k)
        sums[h][k] = _mm512_dpbf16_ps(sums[h][k], reinterpret_cast<__m512bh>(w16), reinterpret_cast<__m512bh>(p.values[k]));
    }
  }
  for (int h = 0; h < H; ++h)
    for (int k = 0; k < 4; ++k) _mm512_storeu_ps(acc + h * acc_stride + 16 * k, sums[h][k]);
}

template <class Row, class Load>
TS_INLINE void add_rows(const Row* const* rows, int32_t count, int32_t head_dim, const float* weights, int64_t stride,
                        int32_t heads, float* acc, std::byte* scratch, const Lines& ahead, Load&& load_pair) {
  Pair* pairs = reinterpret_cast<Pair*>(scratch);
  const int32_t padded = padded_channels(head_dim), n = (count + 1) / 2;
  // A row without a partner goes with itself, at weight 0: the caller has room for one weight more.
  for (int32_t channel = 0; channel < head_dim; channel += kChannelBlock) {
    for (int32_t i = 0; i < n; ++i) {
      if (channel == 0) ahead.prefetch(i, n);
      load_pair(rows[2 * i], rows[std::min(2 * i + 1, count - 1)], head_dim, channel, pairs[i]);
    }
    for (int32_t h = 0; h < heads;) {
      const int32_t left = heads - h, some = left > 4 && left < 8 ? (left + 1) / 2 : std::min(left, 4);
      const float* w = weights + h * stride;
      float* to = acc + int64_t{h} * padded + channel;
      switch (some) {
        case 1: accumulate<1>(pairs, n, w, stride, to, padded); break;
        case 2: accumulate<2>(pairs, n, w, stride, to, padded); break;
        case 3: accumulate<3>(pairs, n, w, stride, to, padded); break;
        default: accumulate<4>(pairs, n, w, stride, to, padded); break;
      }
      h += some;
    }
  }
}

void add_means(const uint8_t* const* means, int32_t count, int32_t head_dim, const float* weights, int64_t stride,
               int32_t heads, float* acc, std::byte* scratch, const Lines& ahead) {
  add_rows(means, count, head_dim, weights, stride, heads, acc, scratch, ahead,
           [](auto&&... a) __attribute__((always_inline)) { load_means(a...); });
}

void add_values(const uint64_t* const* values, int32_t count, int32_t head_dim, const float* weights, int64_t stride,
                int32_t heads, float* acc, std::byte* scratch, const Lines& ahead) {
  add_rows(values, count, head_dim, weights, stride, heads, acc, scratch, ahead,
           [](auto&&... a) __attribute__((always_inline)) { load_values(a...); });
}

void read_acc(const float* acc, int32_t head_dim, float* out) {
  for (int32_t channel = 0; channel < head_dim; ++channel) {
    const int32_t inside = channel % kChannelBlock;  // lane, vector, word
    out[channel] = acc[channel - inside + inside % 16 / 4 * 16 + inside / 16 * 4 + inside % 4];
  }
}

}  // namespace vbmi_sums
}  // namespace
HWY_POP_ATTRIBUTES

SelectionSums selection_sums_avx512() { return {vbmi_sums::add_means, vbmi_sums::add_values, vbmi_sums::read_acc}; }

#else

SelectionSums selection_sums_avx512() { TS_CHECK(false, "not an x86 machine"); }

#endif

}  // namespace tinyserve::ops::cpu
