// Query-aware selection with AVX-512 VNNI, VBMI and BF16 (Zen 4, Sapphire Rapids and later).
//
// Codes become levels in registers: 16 bytes of a 2-bit group widen to 16 words of 32 bits, VPMULTISHIFTQB brings each axis' bits
// to a byte of its own, VPERMB looks the level up, VPDPBUSD adds four axes of 16 tokens. The levels are offset by 128 to be
// unsigned; what sums begin with undoes it, so sums are exact.

#include <hwy/base.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "ops/cpu/selection_kernel.h"

namespace tinyserve::ops::cpu {

#if defined(__x86_64__)

HWY_PUSH_ATTRIBUTES(
    "popcnt,avx,avx2,fma,bmi,bmi2,avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx512vnni,avx512vbmi")
namespace {
namespace vbmi {

#define TS_INLINE inline __attribute__((always_inline))

/// Not left to conversion: GCC 12 (-Og, ThreadSanitizer) keeps the 32 bits in a mask register, spills 16 of them and reads 32 back.
TS_INLINE uint32_t bits_of(__mmask16 mask) {
  uint32_t bits;
  asm("kmovw %1, %0" : "=r"(bits) : "k"(mask));
  return bits;
}

TS_INLINE void compare(const uint16_t* keys, int32_t threshold, uint32_t* above, uint32_t* equal) {
  const __m256i k = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys));
  const __m256i t = _mm256_set1_epi16(static_cast<int16_t>(threshold));
  *above = bits_of(_mm256_cmpgt_epi16_mask(k, t));
  *equal = bits_of(_mm256_cmpeq_epi16_mask(k, t));
}

// Adds base + the places of the bits to a list.
TS_INLINE void append(int32_t* list, int32_t& count, int32_t base, uint32_t bits) {
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(base));
  _mm512_storeu_si512(list + count, _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), numbers));
  count += __builtin_popcount(bits);
}

// The keys that reach `least`, in order. n is a multiple of 16.
TS_INLINE int64_t collect(const uint16_t* keys, int64_t n, int32_t least, uint16_t* to) {
  const __m256i t = _mm256_set1_epi16(static_cast<int16_t>(least - 1));
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += 16) {
    const __m256i k = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + i));
    const __mmask16 reach = _mm256_cmpgt_epi16_mask(k, t);
    const __m512i together = _mm512_maskz_compress_epi32(reach, _mm512_cvtepu16_epi32(k));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + count), _mm512_cvtepi32_epi16(together));
    count += __builtin_popcount(bits_of(reach));
  }
  return count;
}

#include "ops/cpu/selection_choose-inl.h"

struct alignas(64) Bytes {
  uint8_t at[64];
};

constexpr Bytes table(int count, const int8_t* levels) {
  Bytes b{};
  for (int i = 0; i < 64; ++i) b.at[i] = static_cast<uint8_t>(levels[i % count] + 128);
  return b;
}
constexpr Bytes kTable2 = table(4, kLevels2), kTable4 = table(16, kLevels4);
// Byte 4 t + j of the result takes the bits from `first + step j` of the 32-bit word t on.
constexpr Bytes shifts(int step, int first) {
  Bytes b{};
  for (int i = 0; i < 64; ++i) b.at[i] = static_cast<uint8_t>((i % 8 / 4 * 32 + first + step * (i % 4)) & 63);
  return b;
}
constexpr Bytes kShift2 = shifts(2, 0), kShift4 = shifts(4, 0), kShiftUpper = shifts(2, -2);

TS_INLINE __m512i load(const Bytes& b) { return _mm512_load_si512(b.at); }

struct Tables {
  __m512i table2, table4, shift2, shift4;
};

TS_INLINE __m512i words2(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TS_INLINE __m512i levels2(const Tables& t, const uint8_t* p) {
  return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(t.shift2, words2(p)), t.table2);
}
TS_INLINE __m512i levels4(const Tables& t, const uint8_t* p) {
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(t.shift4, words), t.table4);
}
TS_INLINE __m512i levels_nested(const Tables& t, const uint8_t* upper, const uint8_t* lower) {
  const __m512i high = _mm512_multishift_epi64_epi8(load(kShiftUpper), words2(upper));
  const __m512i low = _mm512_multishift_epi64_epi8(t.shift2, words2(lower));
  const __m512i code = _mm512_ternarylogic_epi32(_mm512_set1_epi8(3), low, high, 0xCA);  // where 3: low, else high
  return _mm512_permutexvar_epi8(code, t.table4);
}

// P pages, H heads.
template <int H, int P>
TS_INLINE void score_pages(const HeadBits& bits, const uint8_t* const* coarse, const uint8_t* const* fine,
                           const CodedQueries& q, int32_t* sums) {
  const Tables tables{load(kTable2), load(kTable4), load(kShift2), load(kShift4)};
  __m512i acc[H][P];
  for (int h = 0; h < H; ++h)
    for (int p = 0; p < P; ++p) acc[h][p] = _mm512_set1_epi32(q.start[h]);
  const uint8_t *c[P], *f[P];
  for (int p = 0; p < P; ++p) c[p] = coarse[p], f[p] = fine ? fine[p] : nullptr;
  const int32_t* query = q.q;
  const auto add = [&](const __m512i (&levels)[P]) __attribute__((always_inline)) {
    for (int h = 0; h < H; ++h) {
      const __m512i axes = _mm512_set1_epi32(query[h]);
      for (int p = 0; p < P; ++p) acc[h][p] = _mm512_dpbusd_epi32(acc[h][p], levels[p], axes);
    }
    query += H;
  };
  const auto run = [&](int groups, int c_bytes, int f_bytes, auto&& expand) __attribute__((always_inline)) {
    for (int g = 0; g < groups; ++g) {
      __m512i levels[P];
      for (int p = 0; p < P; ++p) {
        levels[p] = expand(c[p], f[p]);
        c[p] += c_bytes;
        f[p] += f_bytes;
      }
      add(levels);
    }
  };
  const auto coarse4 = [&](auto* a, auto*) __attribute__((always_inline)) { return levels4(tables, a); };
  const auto coarse2 = [&](auto* a, auto*) __attribute__((always_inline)) { return levels2(tables, a); };
  const int c4 = bits.coarse4, c2 = bits.coarse2;
  if (!fine) {
    run(c4, 32, 0, coarse4);
    run(c2, 16, 0, coarse2);
  } else {
    const int f4 = bits.fine4, all = bits.fine4 + bits.fine2;
    const int both = std::min(f4, c4 + c2) - c4;
    run(c4, 32, 0, coarse4);
    run(both, 16, 16, [&](auto* a, auto* b) __attribute__((always_inline)) { return levels_nested(tables, a, b); });
    run(c2 - both, 16, 0, coarse2);
    const int more4 = std::max(0, f4 - c4 - c2);
    run(more4, 0, 32, [&](auto*, auto* b) __attribute__((always_inline)) { return levels4(tables, b); });
    run(all - c4 - c2 - more4, 0, 16, [&](auto*, auto* b) __attribute__((always_inline)) { return levels2(tables, b); });
  }
  for (int h = 0; h < H; ++h)
    for (int p = 0; p < P; ++p) _mm512_storeu_si512(sums + h * kTileTokens + p * kCodePage, acc[h][p]);
}

template <int H>
__attribute__((noinline)) void score_heads(const HeadBits& bits, const TileCodes& codes, const CodedQueries& q,
                                           int32_t* sums, const TileCodes* ahead) {
  constexpr int P = H == 1 ? 8 : H <= 3 ? 4 : 2;  // enough chains for VPDPBUSD's latency, few enough for 32 registers
  for (int p = 0; p < kTilePages; p += P) {
    if (ahead) ahead->prefetch(p, p + P);
    score_pages<H, P>(bits, codes.coarse + p, codes.with_fine ? codes.fine + p : nullptr, q, sums + p * kCodePage);
  }
}

void score(const HeadBits& bits, const TileCodes& codes, const CodedQueries& q, int32_t* sums, const TileCodes* ahead) {
  using Run = void (*)(const HeadBits&, const TileCodes&, const CodedQueries&, int32_t*, const TileCodes*);
  static constexpr Run kRuns[kHeadsAtOnce] = {score_heads<1>, score_heads<2>, score_heads<3>, score_heads<4>,
                                              score_heads<5>, score_heads<6>, score_heads<7>, score_heads<8>};
  kRuns[q.heads - 1](bits, codes, q, sums, ahead);
}

TS_INLINE __m512 as_float(__m512i v) { return _mm512_castsi512_ps(v); }
TS_INLINE __m512i as_int(__m512 v) { return _mm512_castps_si512(v); }

// Reduces 16 vectors to one: lane i of the result is `op` over the lanes of v[i], halves first.
template <class Op>
TS_INLINE __m512 reduce16(__m512 (&v)[16], Op&& op) {
  for (int i = 0; i < 8; ++i)
    v[i] = op(_mm512_mask_blend_ps(0xFF00, v[i], v[i + 8]), _mm512_shuffle_f32x4(v[i], v[i + 8], 0x4E));
  for (int i = 0; i < 4; ++i) {
    const __m512 mixed = _mm512_mask_blend_ps(0x0F0F, v[i], v[i + 4]);
    v[i] = op(_mm512_mask_blend_ps(0xF0F0, v[i], v[i + 4]), _mm512_shuffle_f32x4(mixed, mixed, 0xB1));
  }
  for (int i = 0; i < 2; ++i)
    v[i] = op(_mm512_mask_blend_ps(0xCCCC, v[i], v[i + 2]), _mm512_shuffle_ps(v[i], v[i + 2], 0x4E));
  const __m512 mixed = _mm512_mask_blend_ps(0x5555, v[0], v[1]);
  return op(_mm512_mask_blend_ps(0xAAAA, v[0], v[1]), _mm512_permute_ps(mixed, 0xB1));
}

struct Add {
  TS_INLINE __m512 operator()(__m512 a, __m512 b) const { return _mm512_add_ps(a, b); }
};
struct Larger {
  TS_INLINE __m512 operator()(__m512 a, __m512 b) const { return as_float(_mm512_max_epi32(as_int(a), as_int(b))); }
};

TS_INLINE __m512 sum16(__m512 (&v)[16]) { return reduce16(v, Add()); }

int32_t maxima(const int32_t* sums, int32_t* largest) {
  __m512 v[16];
  for (int p = 0; p < kTilePages; ++p) v[p] = as_float(_mm512_loadu_si512(sums + p * kCodePage));
  const __m512 m = reduce16(v, Larger());
  _mm512_storeu_si512(largest, as_int(m));
  return _mm512_reduce_max_epi32(as_int(m));
}

// 2^x by a minimax polynomial on [0, 1): relative error 8e-5, a thousandth of what the codes' own error does to it, or 3e-6 where
// keys are made of it.
template <bool kFine>
TS_INLINE __m512 exp2(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const auto step = [&](__m512 p, float c) __attribute__((always_inline)) { return _mm512_fmadd_ps(p, r, _mm512_set1_ps(c)); };
  if (kFine) {
    const __m512 p = step(step(_mm512_set1_ps(0.01353412f), 0.05201148f), 0.24144279f);
    return _mm512_scalef_ps(step(step(p, 0.69300381f), 1.0000026f), x);
  }
  const __m512 p = step(step(_mm512_set1_ps(0.07802405f), 0.22606709f), 0.69583396f);
  return _mm512_scalef_ps(step(p, 0.99992513f), x);
}

template <bool kEach>
TS_INLINE void masses_of(const int32_t* sums, float step, float base, float* each, float* mass) {
  const __m512 s = _mm512_set1_ps(step), b = _mm512_set1_ps(base);
  __m512 v[16];
  for (int p = 0; p < kTilePages; ++p) {
    const __m512 x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sums + p * kCodePage)), s, b);
    v[p] = exp2<kEach>(kEach ? _mm512_min_ps(x, _mm512_set1_ps(126.0f)) : x);
    if (kEach) _mm512_storeu_ps(each + p * kCodePage, v[p]);
  }
  _mm512_storeu_ps(mass, sum16(v));
}

void masses(const int32_t* sums, float step, float base, float* each, float* mass) {
  if (each) masses_of<true>(sums, step, base, each, mass);
  else masses_of<false>(sums, step, base, each, mass);
}

void masses_left(const float* each, const uint16_t* left, const int32_t* pages, float* mass) {
  __m512 v[16];
  for (int i = 0; i < kTilePages; ++i)
    v[i] = _mm512_maskz_loadu_ps(left[pages[i]], each + int64_t{pages[i]} * kCodePage);
  _mm512_storeu_ps(mass, sum16(v));
}

float total(const float* values, int64_t n) {
  __m512 a = _mm512_setzero_ps(), b = a;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    a = _mm512_add_ps(a, _mm512_loadu_ps(values + i));
    b = _mm512_add_ps(b, _mm512_loadu_ps(values + i + 16));
  }
  if (i < n) a = _mm512_add_ps(a, _mm512_loadu_ps(values + i));
  return _mm512_reduce_add_ps(_mm512_add_ps(a, b));
}

// Of logarithms to base 2 of shares.
TS_INLINE void store_keys(__m512 log, uint16_t* keys) {
  const __m512 key = _mm512_fmadd_ps(log, _mm512_set1_ps(32 * 0.69314718056f), _mm512_set1_ps(kNumKeys - 1));
  const __m512 inside = _mm512_min_ps(_mm512_max_ps(key, _mm512_setzero_ps()), _mm512_set1_ps(kNumKeys - 1));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(keys), _mm512_cvtepi32_epi16(_mm512_cvttps_epi32(inside)));
}

void page_keys(const int32_t* largest, int64_t stride, const float* step, const float* base, int32_t heads,
               uint16_t* keys) {
  __m512 best = _mm512_set1_ps(-1e30f);
  for (int h = 0; h < heads; ++h) {
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_loadu_si512(largest + h * stride));
    best = _mm512_max_ps(best, _mm512_fmadd_ps(sum, _mm512_set1_ps(step[h]), _mm512_set1_ps(base[h])));
  }
  store_keys(best, keys);
}

void token_keys(const float* each, int64_t head_stride, const float* inverse, int32_t heads, int32_t pages,
                uint16_t* keys) {
  for (int32_t p = 0; p < pages; ++p, each += kCodePage, keys += kCodePage) {
    __m512 share = _mm512_setzero_ps();
    for (int h = 0; h < heads; ++h)
      share = _mm512_max_ps(share, _mm512_mul_ps(_mm512_loadu_ps(each + h * head_stride), _mm512_set1_ps(inverse[h])));
    // Logarithm to base 2, absolute error 2e-6: minimax of degree 6 of the mantissa.
    const __m512 m = _mm512_getmant_ps(share, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
    __m512 log = _mm512_set1_ps(-0.02569114f);
    for (const float c : {0.27514907f, -1.26691892f, 3.28652915f, -5.34198864f, 6.11296226f, -3.04003994f})
      log = _mm512_fmadd_ps(log, m, _mm512_set1_ps(c));
    store_keys(_mm512_add_ps(log, _mm512_getexp_ps(share)), keys);
  }
}

int32_t keep_heavy(float* mass, int64_t stride, const float* inverse, int32_t heads, int32_t pages, float least,
                   int32_t* kept) {
  int32_t count = 0;
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (int32_t p = 0; p < pages; p += 16) {
    __m512 most = _mm512_setzero_ps();
    for (int h = 0; h < heads; ++h)
      most = _mm512_max_ps(most, _mm512_mul_ps(_mm512_loadu_ps(mass + h * stride + p), _mm512_set1_ps(inverse[h])));
    const __mmask16 heavy = _mm512_cmp_ps_mask(most, _mm512_set1_ps(least), _CMP_GE_OQ) &
                            _mm512_cmp_ps_mask(most, _mm512_setzero_ps(), _CMP_GT_OQ);
    if (heavy == 0) continue;
    // What is stored beyond the kept lanes was read already.
    for (int h = 0; h < heads; ++h) {
      const __m512 here = _mm512_loadu_ps(mass + h * stride + p);
      _mm512_storeu_ps(mass + h * stride + count, _mm512_maskz_compress_ps(heavy, here));
    }
    _mm512_storeu_si512(kept + count, _mm512_maskz_compress_epi32(heavy, _mm512_add_epi32(lanes, _mm512_set1_epi32(p))));
    count += __builtin_popcount(bits_of(heavy));
  }
  return count;
}

}  // namespace vbmi
}  // namespace
HWY_POP_ATTRIBUTES

const SelectionKernel* selection_kernel_avx512() {
  static const bool there = __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
                            __builtin_cpu_supports("avx512bf16");
  static const SelectionKernel kernel = {
      "AVX-512 VNNI",   vbmi::score,        vbmi::maxima,        vbmi::masses,     vbmi::masses_left,
      vbmi::total,      vbmi::page_keys,    vbmi::token_keys,    vbmi::reached_by, vbmi::choose_pages,
      vbmi::choose_tokens, vbmi::keep_heavy, selection_sums_avx512()};
  return there ? &kernel : nullptr;
}

#else

const SelectionKernel* selection_kernel_avx512() { return nullptr; }

#endif

}  // namespace tinyserve::ops::cpu
