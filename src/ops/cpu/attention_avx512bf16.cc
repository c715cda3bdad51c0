// Attention over BF16 caches with vdpbf16ps: pairs of BF16 products summed into F32 lanes.
//
// A packed block is K, [head_dim / 2 pairs of channels][kBlock positions], then V, in panels of 4 vectors of channels:
// [panel][kBlock / 2 pairs of positions][up to 64 channels]; units are 32 bits, a pair of BF16. Scores of a row are
// chains over the pairs of channels with positions in lanes, outputs chains over the pairs of positions with channels
// in lanes.
//
// Per block of 64 positions, a group of 6 rows with head_dim 64 takes 2 x 768 vdpbf16ps (1 a cycle on Zen 4), about 400
// instructions of softmax, and 500 loads; the dot products keep 24 of 32 registers busy.

#include <hwy/base.h>
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "ops/cpu/attention_kernel.h"

namespace tinyserve::ops::cpu {

#if defined(__x86_64__)

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,bmi,bmi2,avx512f,avx512vl,avx512dq,avx512bw,avx512bf16")
namespace {
namespace bf16 {

constexpr int kRows = 6;   // rows that share the loads of a block
constexpr int kPanel = 4;  // vectors of channels whose accumulators stay in registers
constexpr int kPairs = kBlock / 2;
constexpr int kVectorBytes = 64;

#define TS_INLINE inline __attribute__((always_inline))

constexpr size_t q_stride_of(int head_dim) { return static_cast<size_t>((head_dim + 31) / 32) * 64; }
size_t q_row_bytes(int head_dim) { return q_stride_of(head_dim); }
constexpr size_t packed_k_bytes(int head_dim) { return static_cast<size_t>((head_dim + 1) / 2) * kBlock * 4; }
size_t packed_block_bytes(int head_dim) {
  return packed_k_bytes(head_dim) + static_cast<size_t>(padded_dim(head_dim)) * kPairs * 4;
}

void load_q(const float* q, int head_dim, float factor, std::byte* to) {
  const __m512 f = _mm512_set1_ps(factor);
  for (int i = 0; i < head_dim; i += 16) {
    const __mmask16 mask = static_cast<__mmask16>(_bzhi_u32(0xffff, std::min(16, head_dim - i)));
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, q + i), f);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + i * 2), (__m256i)_mm512_cvtneps_pbh(v));
  }
  // The other half of the last pair, where head_dim is odd, and up to it: zero by the masked load above.
}

// Words of two vectors, alternating: indices of the lower halves.
alignas(64) constexpr uint16_t kAlternate[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};

// 16 x 16 transpose of 32-bit units.
TS_INLINE void transpose(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // r[4i + c] holds columns c, c + 4, c + 8, c + 12 of rows 4i..4i+3, one per 128-bit lane.
  for (int c = 0; c < 4; ++c) {
    const __m512i a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
    const __m512i e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88),
                  f = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    t[c] = _mm512_shuffle_i32x4(a, e, 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(b, f, 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(a, e, 0xdd);
    t[12 + c] = _mm512_shuffle_i32x4(b, f, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

// Into L1: 12% faster at 32k than into L2 (Zen 5, bundled model's geometry).
TS_INLINE void prefetch(const std::byte* p, int bytes) {
  for (int i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T0);
}

// [kRun, head_dim] -> [pairs of channels][kBlock], columns of one run.
TS_INLINE void pack_k(const std::byte* k, int head_dim, std::byte* to, const std::byte* ahead) {
  const int row_bytes = head_dim * 2;
  for (int c = 0; c < head_dim; c += 32) {
    const int n = std::min(32, head_dim - c);
    __m512i r[16];
    if (n == 32) {
      for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(k + i * row_bytes + c * 2);
    } else {
      const __mmask32 mask = _bzhi_u32(~0u, static_cast<uint32_t>(n));
      for (int i = 0; i < 16; ++i) r[i] = _mm512_maskz_loadu_epi16(mask, k + i * row_bytes + c * 2);
    }
    prefetch(ahead + c * kRun * 2, n * kRun * 2);
    transpose(r);
    const int pairs = (n + 1) / 2;
    std::byte* out = to + static_cast<size_t>(c / 2) * kBlock * 4;
    if (pairs == 16) {
      for (int i = 0; i < 16; ++i) _mm512_store_si512(out + i * kBlock * 4, r[i]);
    } else {
      for (int i = 0; i < pairs; ++i) _mm512_store_si512(out + i * kBlock * 4, r[i]);
    }
  }
}

// [kRun, head_dim] -> pairs of positions in panels; positions outside [begin, end) are zero, whatever they hold.
TS_INLINE void pack_v(const std::byte* v, int head_dim, std::byte* to, int first_pair, int begin, int end,
                      const std::byte* ahead) {
  const __m512i low = _mm512_load_si512(kAlternate), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  const int row_bytes = head_dim * 2;
  for (int c = 0; c < head_dim; c += 32) {
    const int n = std::min(32, head_dim - c);
    const int panel = c / 64, panel_vectors = std::min(kPanel, padded_dim(head_dim) / 16 - panel * kPanel);
    std::byte* out =
        to + (static_cast<size_t>(panel) * kPanel * kPairs + first_pair * panel_vectors + c % 64 / 16) * kVectorBytes;
    const __mmask32 mask = _bzhi_u32(~0u, static_cast<uint32_t>(n));
    prefetch(ahead + c * kRun * 2, n * kRun * 2);
    for (int i = 0; i < kRun; i += 2) {
      const std::byte* p = v + i * row_bytes + c * 2;
      const __m512i a = _mm512_maskz_loadu_epi16(i >= begin && i < end ? mask : 0, p);
      const __m512i b = _mm512_maskz_loadu_epi16(i + 1 >= begin && i + 1 < end ? mask : 0, p + row_bytes);
      std::byte* pair = out + i / 2 * panel_vectors * kVectorBytes;
      _mm512_store_si512(pair, _mm512_permutex2var_epi16(a, low, b));
      if (n > 16) _mm512_store_si512(pair + kVectorBytes, _mm512_permutex2var_epi16(a, high, b));
    }
  }
}

void zero_v(int head_dim, std::byte* to, int first_pair) {
  for (int panel = 0; panel * 64 < head_dim; ++panel) {
    const int vectors = std::min(kPanel, padded_dim(head_dim) / 16 - panel * kPanel);
    std::byte* out = to + (static_cast<size_t>(panel) * kPanel * kPairs + first_pair * vectors) * kVectorBytes;
    for (int i = 0; i < kRun / 2 * vectors; ++i) _mm512_store_si512(out + i * kVectorBytes, _mm512_setzero_si512());
  }
}

template <int D>
TS_INLINE void pack_dim(const BlockSource& s, int any_head_dim, std::byte* packed) {
  const int head_dim = D > 0 ? D : any_head_dim;
  std::byte* v = packed + packed_k_bytes(head_dim);
  for (int run = 0; run < kRunsPerBlock; ++run) {
    const int at = run * kRun;
    if (s.k[run]) {
      pack_k(s.k[run], head_dim, packed + at * 4, s.next_k[run]);
      pack_v(s.v[run], head_dim, v, at / 2, s.begin - at, s.end - at, s.next_v[run]);
    } else {
      zero_v(head_dim, v, at / 2);
    }
  }
}

void pack(const BlockSource& s, int head_dim, std::byte* packed) {
  switch (head_dim) {
    case 64:
      return pack_dim<64>(s, head_dim, packed);
    case 128:
      return pack_dim<128>(s, head_dim, packed);
    default:
      return pack_dim<0>(s, head_dim, packed);
  }
}

// 2^x. Relative error 1.4e-7; exp2(0) == 1; 0 for -infinity and whatever is below F32. Minimax polynomial of the
// relative error on [0, 1) with constant term 1; scalef multiplies by 2^floor(x).
TS_INLINE __m512 exp2(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(0x1.e974fap-10f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.277856p-7f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c91ce6p-5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebdb56p-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e4bap-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);
}

// Absolute error 3e-7.
TS_INLINE __m512 tanh(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  // Saturated well before 2^127, so that no infinity arises.
  const __m512 e =
      exp2(_mm512_min_ps(_mm512_mul_ps(x, _mm512_set1_ps(2 * 1.44269504088896341f)), _mm512_set1_ps(126.0f)));
  return _mm512_fnmadd_ps(_mm512_set1_ps(2.0f), _mm512_div_ps(one, _mm512_add_ps(e, one)), one);
}

TS_INLINE __m512bh pair_at(const std::byte* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return (__m512bh)_mm512_set1_epi32(v);
}
TS_INLINE __m512bh vector_at(const std::byte* p) { return (__m512bh)_mm512_load_si512(p); }

// scores[R, N vectors] = q k^T
template <int R, int N>
TS_INLINE void scores_of(const std::byte* q, size_t q_stride, const std::byte* k, int pairs, __m512 (&acc)[R][N]) {
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) acc[r][n] = _mm512_setzero_ps();
  for (int c = 0; c < pairs; ++c) {
    __m512bh kv[N];
    for (int n = 0; n < N; ++n) kv[n] = vector_at(k + c * kBlock * 4 + n * kVectorBytes);
    for (int r = 0; r < R; ++r) {
      const __m512bh qv = pair_at(q + r * q_stride + c * 4);
      for (int n = 0; n < N; ++n) acc[r][n] = _mm512_dpbf16_ps(acc[r][n], qv, kv[n]);
    }
  }
}

// One row: scores to probabilities, in BF16 at `p`; updates maximum and sum, returns what the accumulator is scaled by.
template <int N>
TS_INLINE float softmax_row(__m512 (&s)[N], int visible_from, int visible_to, float softcap, float* sum, float* maximum,
                            std::byte* p) {
  if (softcap > 0)
    for (int n = 0; n < N; ++n) s[n] = _mm512_mul_ps(_mm512_set1_ps(softcap), tanh(s[n]));
  if (visible_from > 0 || visible_to < N * 16) {
    const uint64_t seen = _bzhi_u64(~uint64_t{0}, static_cast<uint32_t>(std::clamp(visible_to, 0, 64))) &
                          ~_bzhi_u64(~uint64_t{0}, static_cast<uint32_t>(std::clamp(visible_from, 0, 64)));
    for (int n = 0; n < N; ++n)
      s[n] = _mm512_mask_mov_ps(_mm512_set1_ps(kMasked), static_cast<__mmask16>(seen >> (16 * n)), s[n]);
  }
  __m512 largest = s[0];
  for (int n = 1; n < N; ++n) largest = _mm512_max_ps(largest, s[n]);
  const __m512 before = _mm512_set1_ps(*maximum);
  __m512 m = before, total = _mm512_load_ps(sum);
  float scale = 1.0f;
  // In a long context the maximum seldom moves: find it only when it does.
  if (_mm512_cmp_ps_mask(largest, before, _CMP_GT_OQ) != 0) {
    const float now = _mm512_reduce_max_ps(largest);
    m = _mm512_set1_ps(now);
    const __m512 factor = exp2(_mm512_sub_ps(before, m));
    total = _mm512_mul_ps(total, factor);
    scale = _mm512_cvtss_f32(factor);
    *maximum = now;
  }
  const __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int n = 0; n < N; n += 2) {
    const __m512 low = exp2(_mm512_sub_ps(s[n], m));
    const __m512 high = n + 1 < N ? exp2(_mm512_sub_ps(s[n + 1 < N ? n + 1 : n], m)) : _mm512_setzero_ps();
    const __m512bh pairs = _mm512_cvtne2ps_pbh(high, low);
    // The sum takes the rounded probabilities, the same that multiply V.
    total = _mm512_dpbf16_ps(total, pairs, ones);
    _mm512_store_si512(p + n / 2 * kVectorBytes, (__m512i)pairs);
  }
  _mm512_store_ps(sum, total);
  return scale;
}

// acc[R, W vectors] = acc * scale + p v for one panel of channels.
template <int R, int W>
TS_INLINE void outputs_of(const std::byte* p, const std::byte* v, int pairs, const float* scale, bool scaled,
                          float* acc, int padded) {
  __m512 sums[R][W];
  for (int r = 0; r < R; ++r)
    for (int w = 0; w < W; ++w) sums[r][w] = _mm512_load_ps(acc + r * padded + w * 16);
  if (scaled)
    for (int r = 0; r < R; ++r)
      for (int w = 0; w < W; ++w) sums[r][w] = _mm512_mul_ps(sums[r][w], _mm512_set1_ps(scale[r]));
  for (int i = 0; i < pairs; ++i) {
    __m512bh row[W];
    for (int w = 0; w < W; ++w) row[w] = vector_at(v + (i * W + w) * kVectorBytes);
    for (int r = 0; r < R; ++r) {
      const __m512bh pv = pair_at(p + r * kBlock * 2 + i * 4);
      for (int w = 0; w < W; ++w) sums[r][w] = _mm512_dpbf16_ps(sums[r][w], pv, row[w]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int w = 0; w < W; ++w) _mm512_store_ps(acc + r * padded + w * 16, sums[r][w]);
}

// R rows against the first N runs of the block.
template <int R, int N>
__attribute__((noinline)) void run_rows(const BlockRows& b, int row) {
  const int padded = padded_dim(b.head_dim);
  const size_t q_stride = q_stride_of(b.head_dim);
  float scale[R];
  bool scaled = false;
  {
    __m512 scores[R][N];
    scores_of<R, N>(b.q + row * q_stride, q_stride, b.packed, (b.head_dim + 1) / 2, scores);
    for (int r = 0; r < R; ++r) {
      scale[r] =
          softmax_row<N>(scores[r], b.first[row + r] - b.start, b.last[row + r] - b.start + 1, b.softcap,
                         b.state.sum + (row + r) * kSumLanes, b.state.maximum + row + r, b.scratch + r * kBlock * 2);
      scaled |= scale[r] != 1.0f;
    }
  }
  const std::byte* v = b.packed + packed_k_bytes(b.head_dim);
  float* acc = b.state.acc + static_cast<int64_t>(row) * padded;
  int left = padded / 16;
  for (; left >= kPanel; left -= kPanel, acc += kPanel * 16, v += kPanel * kPairs * kVectorBytes)
    outputs_of<R, kPanel>(b.scratch, v, N * 8, scale, scaled, acc, padded);
  switch (left) {
    case 1:
      outputs_of<R, 1>(b.scratch, v, N * 8, scale, scaled, acc, padded);
      break;
    case 2:
      outputs_of<R, 2>(b.scratch, v, N * 8, scale, scaled, acc, padded);
      break;
    case 3:
      outputs_of<R, 3>(b.scratch, v, N * 8, scale, scaled, acc, padded);
      break;
  }
}

// The direct way, for few rows (decode): V goes from the cache through registers into the products without being packed
// in memory first. The same products in the same order as run_rows, so the same bits.
//
// Prefetches are spread evenly between the arithmetic: in bursts they fill the core's miss buffers and stall its loads.

constexpr int kDirectRows = 8;

// One run of K to columns of a packed block, as pack_k. Half of each row is loaded beside half of the row four further
// on, which leaves a quarter fewer shuffles than transpose(): they, not the products, bound a small group.
TS_INLINE void direct_pack_k(const std::byte* k, int head_dim, std::byte* to) {
  const int row_bytes = head_dim * 2;
  for (int c = 0; c < head_dim; c += 32)
    for (int half = 0; half < 2; ++half) {  // 8 pairs of channels
      const std::byte* from = k + c * 2 + half * 32;
      __m512i r[8], t[8];
      for (int i = 0; i < 8; ++i) {
        const std::byte* row = from + (i / 4 * 8 + i % 4) * row_bytes;
        r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row))),
                                  _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 4 * row_bytes)), 1);
      }
      for (int i = 0; i < 4; ++i) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
      }
      for (int i = 0; i < 2; ++i) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
      }
      // r[4g + c]: columns c and c + 4 of rows 8g..8g+3, then of rows 8g+4..8g+7, one per 128-bit lane.
      std::byte* out = to + (c / 2 + half * 8) * kBlock * 4;
      for (int i = 0; i < 4; ++i) {
        _mm512_store_si512(out + i * kBlock * 4, _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88));
        _mm512_store_si512(out + (i + 4) * kBlock * 4, _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd));
      }
    }
}

// scores[R, kBlock] of a packed block: all runs at once, so that few rows, too, are many independent sums. Fetches K of
// the block ahead meanwhile, a line of each run with a pair of channels.
template <int R>
TS_INLINE void direct_scores(const std::byte* q, size_t q_stride, const std::byte* k, int head_dim,
                             const std::byte* const (&ahead)[kRunsPerBlock], float* scores) {
  __m512 sums[R][kRunsPerBlock];
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < kRunsPerBlock; ++n) sums[r][n] = _mm512_setzero_ps();
  for (int c = 0; c < head_dim / 2; ++c) {
    __m512bh kv[kRunsPerBlock];
    for (int n = 0; n < kRunsPerBlock; ++n) {
      kv[n] = vector_at(k + c * kBlock * 4 + n * kVectorBytes);
      prefetch(ahead[n] + c * 64, 64);
    }
    for (int r = 0; r < R; ++r) {
      const __m512bh qv = pair_at(q + r * q_stride + c * 4);
      for (int n = 0; n < kRunsPerBlock; ++n) sums[r][n] = _mm512_dpbf16_ps(sums[r][n], qv, kv[n]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < kRunsPerBlock; ++n) _mm512_store_ps(scores + r * kBlock + n * kRun, sums[r][n]);
}

// acc[R, W vectors] = acc * scale + p v for W vectors of channels from `c` on.
template <int R, int W>
TS_INLINE void direct_outputs(const BlockSource& s, int runs, int c, int head_dim, const std::byte* p,
                              const float* scale, bool scaled, float* acc, int padded) {
  const __m512i low = _mm512_load_si512(kAlternate), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  const int row_bytes = head_dim * 2;
  __m512 sums[R][W];
  for (int r = 0; r < R; ++r)
    for (int w = 0; w < W; ++w) sums[r][w] = _mm512_load_ps(acc + r * padded + w * 16);
  if (scaled)
    for (int r = 0; r < R; ++r)
      for (int w = 0; w < W; ++w) sums[r][w] = _mm512_mul_ps(sums[r][w], _mm512_set1_ps(scale[r]));
  const auto add = [&](__m512i a, __m512i b, int w, const std::byte* pair) __attribute__((always_inline)) {
    const __m512bh v0 = (__m512bh)_mm512_permutex2var_epi16(a, low, b);
    const __m512bh v1 = (__m512bh)_mm512_permutex2var_epi16(a, high, b);
    for (int r = 0; r < R; ++r) {
      const __m512bh pv = pair_at(pair + r * kBlock * 2);
      sums[r][w] = _mm512_dpbf16_ps(sums[r][w], pv, v0);
      sums[r][w + 1] = _mm512_dpbf16_ps(sums[r][w + 1], pv, v1);
    }
  };
  for (int run = 0; run < runs; ++run) {
    if (!s.v[run]) continue;
    const int begin = s.begin - run * kRun, end = s.end - run * kRun;
    const std::byte* v = s.v[run] + c * 2;
    const std::byte* pairs = p + run * kRun * 2;
    if (begin <= 0 && end >= kRun) {
      const std::byte* ahead = (s.next_v[run] ? s.next_v[run] : s.v[run]) + c * kRun * 2;
      for (int i = 0; i < kRun; i += 2)
        for (int w = 0; w < W; w += 2) {
          prefetch(ahead + (i * W / 2 + w) * 64, 128);
          add(_mm512_loadu_si512(v + i * row_bytes + w * 32), _mm512_loadu_si512(v + (i + 1) * row_bytes + w * 32), w,
              pairs + i * 2);
        }
    } else {
      for (int i = 0; i < kRun; i += 2) {
        const __mmask32 first = i >= begin && i < end ? ~0u : 0, second = i + 1 >= begin && i + 1 < end ? ~0u : 0;
        for (int w = 0; w < W; w += 2)
          add(_mm512_maskz_loadu_epi16(first, v + i * row_bytes + w * 32),
              _mm512_maskz_loadu_epi16(second, v + (i + 1) * row_bytes + w * 32), w, pairs + i * 2);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int w = 0; w < W; ++w) _mm512_store_ps(acc + r * padded + w * 16, sums[r][w]);
}

template <int R, int D>
__attribute__((noinline)) void direct_rows(const BlockSource& s, const BlockRows& b) {
  const int head_dim = D > 0 ? D : b.head_dim, padded = head_dim;
  const size_t q_stride = q_stride_of(head_dim);
  const int runs = std::min(kRunsPerBlock, (b.last[R - 1] - b.start) / kRun + 1);
  float* scores = reinterpret_cast<float*>(b.scratch + kRowScratchBytes / 2);
  const std::byte* ahead[kRunsPerBlock];
  for (int run = 0; run < kRunsPerBlock; ++run) {
    if (run < runs && s.k[run]) direct_pack_k(s.k[run], head_dim, b.packed + run * kRun * 4);
    ahead[run] = s.next_k[run] ? s.next_k[run] : s.k[0] ? s.k[0] : s.k[runs - 1];
  }
  constexpr int kFirst = R <= kRows ? R : R / 2;  // as many sums as registers hold
  direct_scores<kFirst>(b.q, q_stride, b.packed, head_dim, ahead, scores);
  if constexpr (kFirst < R)
    direct_scores<R - kFirst>(b.q + kFirst * q_stride, q_stride, b.packed, head_dim, ahead, scores + kFirst * kBlock);
  float scale[R];
  bool scaled = false;
  for (int r = 0; r < R; ++r) {
    __m512 row[kRunsPerBlock];
    for (int n = 0; n < kRunsPerBlock; ++n) row[n] = _mm512_load_ps(scores + r * kBlock + n * kRun);
    scale[r] = softmax_row<kRunsPerBlock>(row, b.first[r] - b.start, b.last[r] - b.start + 1, b.softcap,
                                          b.state.sum + r * kSumLanes, b.state.maximum + r, b.scratch + r * kBlock * 2);
    scaled |= scale[r] != 1.0f;
  }
  // As many accumulators as registers allow; at least 6 keep the unit busy.
  constexpr int W = R <= 2 ? 8 : R <= 6 ? 4 : 2;
  int c = 0;
  for (; c + W * 16 <= head_dim; c += W * 16)
    direct_outputs<R, W>(s, runs, c, head_dim, b.scratch, scale, scaled, b.state.acc + c, padded);
  for (; c < head_dim; c += 32)
    direct_outputs<R, 2>(s, runs, c, head_dim, b.scratch, scale, scaled, b.state.acc + c, padded);
}

using RunRows = void (*)(const BlockRows&, int);
template <int... I>
constexpr std::array<RunRows, sizeof...(I)> run_rows_table(std::integer_sequence<int, I...>) {
  return {run_rows<I / kRunsPerBlock + 1, I % kRunsPerBlock + 1>...};
}
constexpr auto kRunRows = run_rows_table(std::make_integer_sequence<int, kRows * kRunsPerBlock>());

template <int D>
void direct(const BlockSource& s, const BlockRows& b) {
  switch (b.num_rows) {
    case 1:
      return direct_rows<1, D>(s, b);
    case 2:
      return direct_rows<2, D>(s, b);
    case 3:
      return direct_rows<3, D>(s, b);
    case 4:
      return direct_rows<4, D>(s, b);
    case 5:
      return direct_rows<5, D>(s, b);
    case 6:
      return direct_rows<6, D>(s, b);
    case 7:
      return direct_rows<7, D>(s, b);
    default:
      return direct_rows<8, D>(s, b);
  }
}

void run(const BlockSource& s, const BlockRows& b) {
  if (b.num_rows <= kDirectRows && b.head_dim % 32 == 0)
    return b.head_dim == 64 ? direct<64>(s, b) : b.head_dim == 128 ? direct<128>(s, b) : direct<0>(s, b);
  pack(s, b.head_dim, b.packed);
  for (int row = 0, left = b.num_rows; left > 0;) {
    const int groups = (left + kRows - 1) / kRows, n = (left + groups - 1) / groups;
    const int last = b.last[row + n - 1];
    if (last >= b.start && b.first[row] < b.start + kBlock) {
      const int runs = std::min(kRunsPerBlock, (last - b.start) / kRun + 1);
      kRunRows[(n - 1) * kRunsPerBlock + runs - 1](b, row);
    }
    row += n;
    left -= n;
  }
}

void fold(const RowState& total, const RowState& part, int64_t rows, int head_dim) {
  const int padded = padded_dim(head_dim);
  for (int64_t r = 0; r < rows; ++r) {
    const float sum = _mm512_reduce_add_ps(_mm512_load_ps(part.sum + r * kSumLanes));
    const float now = std::max(total.maximum[r], part.maximum[r]);
    const __m512 x = exp2(_mm512_set1_ps(total.maximum[r] - now)), y = exp2(_mm512_set1_ps(part.maximum[r] - now));
    total.maximum[r] = now;
    total.sum[r * kSumLanes] = total.sum[r * kSumLanes] * _mm512_cvtss_f32(x) + sum * _mm512_cvtss_f32(y);
    float *to = total.acc + r * padded, *from = part.acc + r * padded;
    for (int c = 0; c < padded; c += 16)
      _mm512_store_ps(to + c, _mm512_fmadd_ps(_mm512_load_ps(from + c), y, _mm512_mul_ps(_mm512_load_ps(to + c), x)));
  }
}

void finish(const float* acc, float sum, int head_dim, float* out) {
  const __m512 inverse = _mm512_set1_ps(1.0f / sum);
  for (int i = 0; i < head_dim; i += 16) {
    const __mmask16 mask = static_cast<__mmask16>(_bzhi_u32(0xffff, std::min(16, head_dim - i)));
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(_mm512_load_ps(acc + i), inverse));
  }
}

}  // namespace bf16
}  // namespace
HWY_POP_ATTRIBUTES

AttentionKernel attention_kernel_avx512bf16() {
  return {bf16::q_row_bytes, bf16::packed_block_bytes, bf16::load_q, bf16::run, bf16::fold, bf16::finish};
}

#else

AttentionKernel attention_kernel_avx512bf16() { TS_CHECK(false, "not an x86 machine"); }

#endif

}  // namespace tinyserve::ops::cpu
