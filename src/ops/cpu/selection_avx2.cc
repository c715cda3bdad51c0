// Query-aware selection with AVX2. Codes become signed levels by PSHUFB; VPMADDUBSW adds pairs of |q| * (+-level): 2 * 127 * 126 fits
// its 16 bits. The rest are plain loops over 16 tokens or channels, which the compiler turns into vectors.

#include <hwy/base.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/check.h"
#include "ops/cpu/selection_kernel.h"

namespace tinyserve::ops::cpu {

#if defined(__x86_64__)

HWY_PUSH_ATTRIBUTES("popcnt,avx,avx2,fma,bmi,bmi2")
namespace {
namespace avx2 {

#define TS_INLINE inline __attribute__((always_inline))

TS_INLINE void compare(const uint16_t* keys, int32_t threshold, uint32_t* above, uint32_t* equal) {
  uint32_t a = 0, e = 0;
  for (int t = 0; t < 16; ++t) {
    a |= static_cast<uint32_t>(keys[t] > threshold) << t;
    e |= static_cast<uint32_t>(keys[t] == threshold) << t;
  }
  *above = a;
  *equal = e;
}

TS_INLINE void append(int32_t* list, int32_t& count, int32_t base, uint32_t bits) {
  for (; bits; bits &= bits - 1) list[count++] = base + __builtin_ctz(bits);
}

TS_INLINE int64_t collect(const uint16_t* keys, int64_t n, int32_t least, uint16_t* to) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    to[count] = keys[i];
    count += keys[i] >= least;
  }
  return count;
}

#include "ops/cpu/selection_choose-inl.h"

struct Halves {  // tokens 0..7 and 8..15, four axes each
  __m256i low, high;
};

TS_INLINE __m256i twice(const void* p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
TS_INLINE __m256i table(const int8_t* entries) { return twice(entries); }

alignas(16) constexpr int8_t kTable4[16] = {kLevels4[0],  kLevels4[1],  kLevels4[2],  kLevels4[3], kLevels4[4],  kLevels4[5],
                                            kLevels4[6],  kLevels4[7],  kLevels4[8],  kLevels4[9], kLevels4[10], kLevels4[11],
                                            kLevels4[12], kLevels4[13], kLevels4[14], kLevels4[15]};
// By crumbs(), which leaves a code c as c or as 4 c.
alignas(16) constexpr int8_t kTable2[16] = {kLevels2[0], kLevels2[1], kLevels2[2], kLevels2[3], kLevels2[1], 0, 0, 0,
                                            kLevels2[2], 0,           0,           0,           kLevels2[3], 0, 0, 0};
alignas(16) constexpr int8_t kLower[16] = {0, 1, 2, 3, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0};
alignas(16) constexpr int8_t kUpper[16] = {0, 4, 8, 12, 4, 0, 0, 0, 8, 0, 0, 0, 12, 0, 0, 0};

// The bit pairs of 8 bytes, each in a byte: axes 0 and 2 as they are, axes 1 and 3 times 4.
TS_INLINE __m256i crumbs(__m256i bytes, __m256i which) {
  const __m256i masked = _mm256_and_si256(_mm256_shuffle_epi8(bytes, which), _mm256_set1_epi32(static_cast<int>(0xC0300C03)));
  return _mm256_blend_epi16(masked, _mm256_srli_epi16(masked, 4), 0xAA);
}
TS_INLINE Halves codes2(const uint8_t* p) {
  const __m256i first = _mm256_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7);
  const __m256i bytes = twice(p);
  return {crumbs(bytes, first), crumbs(bytes, _mm256_add_epi8(first, _mm256_set1_epi8(8)))};
}
TS_INLINE Halves look_up(const Halves& index, const int8_t* entries) {
  return {_mm256_shuffle_epi8(table(entries), index.low), _mm256_shuffle_epi8(table(entries), index.high)};
}
TS_INLINE Halves levels2(const uint8_t* p) { return look_up(codes2(p), kTable2); }
TS_INLINE Halves levels4(const uint8_t* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), nibble = _mm256_set1_epi8(15);
  const __m256i even = _mm256_and_si256(bytes, nibble), odd = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
  const __m256i a = _mm256_unpacklo_epi8(even, odd), b = _mm256_unpackhi_epi8(even, odd);
  return look_up({_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31)}, kTable4);
}
TS_INLINE Halves levels_nested(const uint8_t* upper, const uint8_t* lower) {
  const Halves a = look_up(codes2(upper), kUpper), b = look_up(codes2(lower), kLower);
  return look_up({_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)}, kTable4);
}

void score(const HeadBits& bits, const TileCodes& codes, const CodedQueries& q, int32_t* sums, const TileCodes* ahead) {
  const bool fine = codes.with_fine;
  Halves levels[64];
  const int c4 = bits.coarse4, c2 = bits.coarse2, all = fine ? bits.fine4 + bits.fine2 : c4 + c2;
  for (int p = 0; p < kTilePages; ++p) {
    if (ahead) ahead->prefetch(p, p + 1);
    const uint8_t *c = codes.coarse[p], *f = fine ? codes.fine[p] : nullptr;
    for (int g = 0; g < all; ++g) {
      const int has = bits.coarse(g), wants = fine ? bits.fine(g) : has;
      if (has == 4) levels[g] = levels4(c);
      else if (has == 2 && wants == 4) levels[g] = levels_nested(c, f);
      else if (has == 2) levels[g] = levels2(c);
      else if (wants == 4) levels[g] = levels4(f);
      else levels[g] = levels2(f);
      c += 8 * has;
      if (wants > has) f += 8 * (wants - has);
    }
    const __m256i ones = _mm256_set1_epi16(1);
    for (int h = 0; h < q.heads; ++h) {
      __m256i low = _mm256_setzero_si256(), high = low;
      for (int g = 0; g < all; ++g) {
        const __m256i axes = _mm256_set1_epi32(q.q[g * q.heads + h]), size = _mm256_abs_epi8(axes);
        low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_maddubs_epi16(size, _mm256_sign_epi8(levels[g].low, axes)), ones));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_maddubs_epi16(size, _mm256_sign_epi8(levels[g].high, axes)), ones));
      }
      int32_t* to = sums + h * kTileTokens + p * kCodePage;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), low);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8), high);
    }
  }
}

int32_t maxima(const int32_t* sums, int32_t* largest) {
  for (int p = 0; p < kTilePages; ++p) {
    int32_t m = sums[p * kCodePage];
    for (int t = 1; t < kCodePage; ++t) m = std::max(m, sums[p * kCodePage + t]);
    largest[p] = m;
  }
  return *std::max_element(largest, largest + kTilePages);
}

// 2^x by a minimax polynomial on [0, 1): relative error 3e-6.
TS_INLINE float rough_exp2(float x) {
  const float whole = std::floor(std::max(x, -126.0f)), r = std::max(x, -126.0f) - whole;
  const float p = (((0.01353412f * r + 0.05201148f) * r + 0.24144279f) * r + 0.69300381f) * r + 1.0000026f;
  const float power = std::bit_cast<float>((static_cast<int32_t>(whole) + 127) << 23);
  return x < -126.0f ? 0.0f : p * power;
}

TS_INLINE float sum_of(const float* v) {  // halves first
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = v[i] + v[i + 8];
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

void masses(const int32_t* sums, float step, float base, float* each, float* mass) {
  for (int p = 0; p < kTilePages; ++p) {
    float v[kCodePage];
    for (int t = 0; t < kCodePage; ++t)
      v[t] = rough_exp2(std::min(static_cast<float>(sums[p * kCodePage + t]) * step + base, 126.0f));
    if (each) std::memcpy(each + p * kCodePage, v, sizeof v);
    mass[p] = sum_of(v);
  }
}

void masses_left(const float* each, const uint16_t* left, const int32_t* pages, float* mass) {
  for (int i = 0; i < kTilePages; ++i) {
    const float* page = each + int64_t{pages[i]} * kCodePage;
    float v[kCodePage];
    for (int t = 0; t < kCodePage; ++t) v[t] = left[pages[i]] >> t & 1 ? page[t] : 0.0f;
    mass[i] = sum_of(v);
  }
}

float total(const float* values, int64_t n) {
  float lanes[16] = {};
  for (int64_t i = 0; i < n; i += 16)
    for (int t = 0; t < 16; ++t) lanes[t] += values[i + t];
  return sum_of(lanes);
}

TS_INLINE uint16_t key_of(float log) {
  const float key = log * (32 * 0.69314718056f) + (kNumKeys - 1);
  return static_cast<uint16_t>(static_cast<int32_t>(std::min(std::max(key, 0.0f), kNumKeys - 1.0f)));
}

void page_keys(const int32_t* largest, int64_t stride, const float* step, const float* base, int32_t heads,
               uint16_t* keys) {
  float best[16];
  std::fill_n(best, 16, -1e30f);
  for (int h = 0; h < heads; ++h)
    for (int i = 0; i < 16; ++i) best[i] = std::max(best[i], static_cast<float>(largest[h * stride + i]) * step[h] + base[h]);
  for (int i = 0; i < 16; ++i) keys[i] = key_of(best[i]);
}

void token_keys(const float* each, int64_t head_stride, const float* inverse, int32_t heads, int32_t pages,
                uint16_t* keys) {
  for (int32_t p = 0; p < pages; ++p, each += kCodePage, keys += kCodePage) {
    float share[16] = {};
    for (int h = 0; h < heads; ++h)
      for (int t = 0; t < 16; ++t) share[t] = std::max(share[t], each[h * head_stride + t] * inverse[h]);
    for (int t = 0; t < 16; ++t) {
      const int32_t word = std::bit_cast<int32_t>(share[t]);
      const float m = std::bit_cast<float>((word & 0x7FFFFF) | 0x3F800000);
      float log = -0.02569114f;
      for (const float c : {0.27514907f, -1.26691892f, 3.28652915f, -5.34198864f, 6.11296226f, -3.04003994f})
        log = log * m + c;
      keys[t] = key_of(log + static_cast<float>((word >> 23) - 127));  // a share of zero has the key 0
    }
  }
}

int32_t keep_heavy(float* mass, int64_t stride, const float* inverse, int32_t heads, int32_t pages, float least,
                   int32_t* kept) {
  int32_t count = 0;
  for (int32_t p = 0; p < pages; p += 16) {
    float most[16] = {};
    for (int h = 0; h < heads; ++h)
      for (int i = 0; i < 16; ++i) most[i] = std::max(most[i], mass[h * stride + p + i] * inverse[h]);
    for (int i = 0; i < 16; ++i) {
      if (!(most[i] > 0 && most[i] >= least)) continue;
      for (int h = 0; h < heads; ++h) mass[h * stride + count] = mass[h * stride + p + i];
      kept[count++] = p + i;
    }
  }
  return count;
}

template <class Row, class Decode>
TS_INLINE void add_rows(const Row* const* rows, int32_t count, int32_t head_dim, const float* weights, int64_t stride,
                        int32_t heads, float* acc, std::byte* scratch, const Lines& ahead, Decode&& decode) {
  float* values = reinterpret_cast<float*>(scratch);
  const int32_t padded = padded_channels(head_dim);
  for (int32_t i = 0; i < count; ++i) {
    ahead.prefetch(i, count);
    for (int32_t b = 0; b < head_dim / 16; ++b) decode(rows[i], b, values + 16 * b);
    for (int32_t h = 0; h < heads; ++h) {
      const float w = weights[h * stride + i];
      float* to = acc + int64_t{h} * padded;
      for (int32_t c = 0; c < head_dim; ++c) to[c] += w * values[c];
    }
  }
}

TS_INLINE float scale_at(uint32_t bf16) { return std::bit_cast<float>(bf16 << 16); }

void add_means(const uint8_t* const* means, int32_t count, int32_t head_dim, const float* weights, int64_t stride,
               int32_t heads, float* acc, std::byte* scratch, const Lines& ahead) {
  add_rows(means, count, head_dim, weights, stride, heads, acc, scratch, ahead, [&](const uint8_t* p, int32_t b, float* to) {
    uint16_t bits;
    std::memcpy(&bits, p + head_dim / 2 + 2 * b, 2);
    for (int i = 0; i < 8; ++i) {
      to[i] = (static_cast<float>(p[8 * b + i] & 15) - 7.5f) * scale_at(bits);
      to[i + 8] = (static_cast<float>(p[8 * b + i] >> 4) - 7.5f) * scale_at(bits);
    }
  });
}

void add_values(const uint64_t* const* values, int32_t count, int32_t head_dim, const float* weights, int64_t stride,
                int32_t heads, float* acc, std::byte* scratch, const Lines& ahead) {
  add_rows(values, count, head_dim, weights, stride, heads, acc, scratch, ahead, [](const uint64_t* p, int32_t b, float* to) {
    const float scale = scale_at(static_cast<uint32_t>(p[b] >> 48));
    const uint32_t low = static_cast<uint32_t>(p[b]) & 0xFFFFFF, high = static_cast<uint32_t>(p[b] >> 24) & 0xFFFFFF;
    for (uint32_t i = 0; i < 8; ++i) {
      to[i] = (static_cast<float>(static_cast<int32_t>(low >> (3 * i) & 7)) - 3.5f) * scale;
      to[i + 8] = (static_cast<float>(static_cast<int32_t>(high >> (3 * i) & 7)) - 3.5f) * scale;
    }
  });
}

void read_acc(const float* acc, int32_t head_dim, float* out) { std::copy_n(acc, head_dim, out); }

}  // namespace avx2
}  // namespace
HWY_POP_ATTRIBUTES

const SelectionKernel& selection_kernel_avx2() {
  static constexpr SelectionKernel kKernel = {
      "AVX2",           avx2::score,        avx2::maxima,        avx2::masses,     avx2::masses_left,
      avx2::total,      avx2::page_keys,    avx2::token_keys,    avx2::reached_by, avx2::choose_pages,
      avx2::choose_tokens, avx2::keep_heavy, {avx2::add_means, avx2::add_values, avx2::read_acc}};
  return kKernel;
}

#else

const SelectionKernel& selection_kernel_avx2() { TS_CHECK(false, "not an x86 machine"); }

#endif

}  // namespace tinyserve::ops::cpu
