// Codes of pages, and queries in the axes of the codes, on Highway vectors. Tokens are in lanes: an axis of 16 tokens is head_dim
// multiply-adds of one vector of AVX-512, and nothing is summed across lanes.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/cpu/selection_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/selection_maps.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tinyserve::ops::cpu::HWY_NAMESPACE {

using FloatTag = hn::CappedTag<float, 16>;
using Vec = hn::Vec<FloatTag>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));
constexpr int kParts = 16 / kLanes;  // vectors of 16 tokens or channels

HWY_INLINE float dot(const float* x, const float* y, int32_t n) {
  const FloatTag d;
  Vec sum = hn::Zero(d);
  for (int32_t i = 0; i < n; i += kLanes) sum = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), sum);
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// Half of sum c_a^2 error_a: what the error of the codes adds to the logarithm of the expected exponential.
HWY_INLINE float expected(const float* c, const float* error, int32_t n) {
  const FloatTag d;
  Vec sum = hn::Zero(d);
  for (int32_t i = 0; i < n; i += kLanes) {
    const Vec v = hn::LoadU(d, c + i);
    sum = hn::MulAdd(hn::Mul(v, v), hn::LoadU(d, error + i), sum);
  }
  return 0.5f * hn::GetLane(hn::SumOfLanes(d, sum));
}

AxesQuery load_query(const AxesArgs& a, int8_t* bytes, float* c) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const int32_t dim = a.head_dim;
  const HeadBits& bits = a.map->bits[a.head];
  const float* rows = a.map->from_axes + int64_t{a.head} * dim * dim;
  for (int32_t axis = 0; axis < dim; axis += 4) {
    Vec sums[4];
    for (int j = 0; j < 4; ++j) sums[j] = hn::Zero(d);
    for (int32_t i = 0; i < dim; i += kLanes) {
      const Vec x = hn::LoadU(d, a.q + i);
      for (int j = 0; j < 4; ++j) sums[j] = hn::MulAdd(x, hn::LoadU(d, rows + int64_t{axis + j} * dim + i), sums[j]);
    }
    for (int j = 0; j < 4; ++j) c[axis + j] = a.scale * hn::GetLane(hn::SumOfLanes(d, sums[j]));
  }
  const int64_t at = int64_t{a.head} * dim;
  const float shift = a.scale * dot(a.map->mean + at, a.q, dim);
  AxesQuery query;
  query.coarse_shift = kLog2e * (shift + expected(c, a.map->coarse_error + at, dim));
  query.fine_shift = kLog2e * (shift + expected(c, a.map->fine_error + at, dim));
  const int32_t coarse = 4 * (bits.coarse4 + bits.coarse2), fine = 4 * (bits.fine4 + bits.fine2);
  std::fill(c + fine, c + dim, 0.0f);
  Vec largest = hn::Zero(d);
  for (int32_t i = 0; i < dim; i += kLanes) largest = hn::Max(largest, hn::Abs(hn::LoadU(d, c + i)));
  const float most = hn::GetLane(hn::MaxOfLanes(d, largest));
  query.step = kLog2e * (most / 127 * kLevelStep);
  const Vec inverse = hn::Set(d, most > 0 ? 127 / most : 0.0f);
  HWY_ALIGN int32_t whole[16];
  for (int32_t i = 0; i < dim; i += 16) {
    for (int p = 0; p < 16; p += kLanes)
      hn::Store(hn::ConvertTo(di, hn::Round(hn::Mul(hn::LoadU(d, c + i + p), inverse))), di, whole + p);
    for (int j = 0; j < 16; ++j) {
      bytes[i + j] = static_cast<int8_t>(whole[j]);
      query.coarse_start -= i + j < coarse ? 128 * whole[j] : 0;
      query.fine_start -= 128 * whole[j];
    }
  }
  return query;
}

void add_row(const std::byte* v, DType dtype, int32_t head_dim, const float* weights, int64_t stride, int32_t heads,
             float* acc) {
  const FloatTag d;
  const float* f32 = reinterpret_cast<const float*>(v);
  const uint16_t* bf16 = reinterpret_cast<const uint16_t*>(v);
  for (int32_t i = 0; i < head_dim; i += kLanes) {
    const Vec x = dtype == DType::kF32 ? hn::LoadU(d, f32 + i) : load_bfloat16(d, bf16 + i);
    for (int32_t h = 0; h < heads; ++h) {
      float* to = acc + int64_t{h} * head_dim + i;
      hn::StoreU(hn::MulAdd(hn::Set(d, weights[h * stride]), x, hn::LoadU(d, to)), d, to);
    }
  }
}

void combine(const float* values, int64_t stride, const float* factors, int32_t heads, int64_t n, bool largest,
             float* to) {
  const FloatTag d;
  for (int64_t i = 0; i < n; i += kLanes) {
    Vec sum = hn::Zero(d), most = hn::Zero(d);
    for (int32_t h = 0; h < heads; ++h) {
      const Vec x = hn::Mul(hn::LoadU(d, values + h * stride + i), hn::Set(d, factors[h]));
      sum = hn::Add(sum, x), most = hn::Max(most, x);
    }
    hn::StoreU(largest ? most : sum, d, to + i);
  }
}

void dots(const std::byte* k, DType dtype, int32_t head_dim, const float* q, int32_t heads, float* to) {
  const FloatTag d;
  const float* f32 = reinterpret_cast<const float*>(k);
  const uint16_t* bf16 = reinterpret_cast<const uint16_t*>(k);
  for (int32_t h = 0; h < heads; ++h) {
    Vec sum = hn::Zero(d);
    for (int32_t i = 0; i < head_dim; i += kLanes)
      sum = hn::MulAdd(hn::LoadU(d, q + int64_t{h} * head_dim + i),
                       dtype == DType::kF32 ? hn::LoadU(d, f32 + i) : load_bfloat16(d, bf16 + i), sum);
    to[h] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

// Rows of a page, F32.
HWY_INLINE void load_rows(const std::byte* from, DType dtype, int64_t n, float* to) {
  const FloatTag d;
  const float* f32 = reinterpret_cast<const float*>(from);
  const uint16_t* bf16 = reinterpret_cast<const uint16_t*>(from);
  for (int64_t i = 0; i < n; i += kLanes)
    hn::StoreU(dtype == DType::kF32 ? hn::LoadU(d, f32 + i) : load_bfloat16(d, bf16 + i), d, to + i);
}

// Codes of one axis of 16 tokens: code_of() in lanes.
HWY_INLINE void codes_of(const Vec (&u)[kParts], int32_t* codes) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  for (int p = 0; p < kParts; ++p) {
    const Vec size = hn::Abs(u[p]);
    auto passed = hn::Zero(di);  // comparisons give -1
    for (const float b : kBoundaries) passed = hn::Sub(passed, hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(size, hn::Set(d, b)))));
    const auto negative = hn::VecFromMask(di, hn::RebindMask(di, hn::Lt(u[p], hn::Zero(d))));
    // 8 + passed, or 7 - passed = ~(8 + passed) + 16.
    const auto up = hn::Add(passed, hn::Set(di, 8));
    hn::StoreU(hn::And(hn::Xor(up, negative), hn::Set(di, 15)), di, codes + p * kLanes);
  }
}

// A group of 4 axes: `bits` of the codes from bit `from` on. Returns where the next one goes.
HWY_INLINE uint8_t* write_group(const int32_t* codes, int bits, int from, uint8_t* to) {
  const int mask = (1 << bits) - 1;
  for (int t = 0; t < kCodePage; ++t) {
    int32_t word = 0;
    for (int j = 0; j < 4; ++j) word |= (codes[j * kCodePage + t] >> from & mask) << (bits * j);
    if (bits == 2) {
      to[t] = static_cast<uint8_t>(word);
    } else {
      to[2 * t] = static_cast<uint8_t>(word);
      to[2 * t + 1] = static_cast<uint8_t>(word >> 8);
    }
  }
  return to + 8 * bits;
}

void encode_keys(const EncodeArgs& a, int64_t block, int32_t head, const float* k, float* by_channel) {
  const FloatTag d;
  const int32_t dim = a.cache.head_dim;
  const float* mean = a.map.mean + int64_t{head} * dim;
  for (int32_t i = 0; i < dim; ++i)
    for (int t = 0; t < kCodePage; ++t) by_channel[i * kCodePage + t] = k[t * dim + i] - mean[i];
  const HeadBits& bits = a.map.bits[head];
  uint8_t* coarse = a.cache.codes.coarse + block * coarse_bytes(dim);
  uint8_t* fine = a.cache.codes.fine + block * fine_bytes(dim);
  uint8_t *coarse_end = coarse + coarse_bytes(dim), *fine_end = fine + fine_bytes(dim);
  for (int32_t g = 0; g < bits.fine4 + bits.fine2; ++g) {
    const float* rows = a.map.to_axes + (int64_t{head} * dim + 4 * g) * dim;
    Vec u[4][kParts];
    for (int j = 0; j < 4; ++j)
      for (int p = 0; p < kParts; ++p) u[j][p] = hn::Zero(d);
    for (int32_t i = 0; i < dim; ++i) {
      Vec x[kParts];
      for (int p = 0; p < kParts; ++p) x[p] = hn::LoadU(d, by_channel + i * kCodePage + p * kLanes);
      for (int j = 0; j < 4; ++j)
        for (int p = 0; p < kParts; ++p) u[j][p] = hn::MulAdd(x[p], hn::Set(d, rows[j * dim + i]), u[j][p]);
    }
    HWY_ALIGN int32_t codes[4 * kCodePage];
    for (int j = 0; j < 4; ++j) codes_of(u[j], codes + j * kCodePage);
    const int32_t c = bits.coarse(g), f = bits.fine(g);
    if (c == 4) coarse = write_group(codes, 4, 0, coarse);
    if (c == 2) coarse = write_group(codes, 2, 2, coarse);
    if (c == 2 && f == 4) fine = write_group(codes, 2, 0, fine);
    if (c == 0 && f == 2) fine = write_group(codes, 2, 2, fine);
    if (c == 0 && f == 4) fine = write_group(codes, 4, 0, fine);
  }
  std::fill(coarse, coarse_end, uint8_t{0});
  std::fill(fine, fine_end, uint8_t{0});
}

// 16 channels as codes 0..2 half and the scale that is kept.
HWY_INLINE BFloat16 quantise(const float* x, float half, int32_t* codes) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  Vec v[kParts], largest = hn::Zero(d);
  for (int p = 0; p < kParts; ++p) {
    v[p] = hn::LoadU(d, x + p * kLanes);
    largest = hn::Max(largest, hn::Abs(v[p]));
  }
  const BFloat16 scale = to_bfloat16(hn::GetLane(hn::MaxOfLanes(d, largest)) / half);
  const float used = to_float(scale);
  if (used == 0) {
    std::fill_n(codes, 16, static_cast<int32_t>(half + 0.5f));
    return scale;
  }
  for (int p = 0; p < kParts; ++p) {
    const Vec code = hn::Round(hn::Add(hn::Div(v[p], hn::Set(d, used)), hn::Set(d, half)));
    const Vec inside = hn::Min(hn::Max(code, hn::Zero(d)), hn::Set(d, 2 * half));
    hn::StoreU(hn::ConvertTo(di, inside), di, codes + p * kLanes);
  }
  return scale;
}

void encode_values(const EncodeArgs& a, int64_t block, const float* v, float* mean) {
  const int32_t dim = a.cache.head_dim;
  HWY_ALIGN int32_t codes[16];
  uint8_t* to = a.cache.codes.mean + block * mean_bytes(dim);
  for (int32_t i = 0; i < dim; ++i) {
    float sum = 0;
    for (int t = 0; t < kCodePage; ++t) sum += v[t * dim + i];
    mean[i] = sum / kCodePage;
  }
  for (int32_t b = 0; b < dim / 16; ++b) {
    const BFloat16 scale = quantise(mean + 16 * b, 7.5f, codes);
    for (int i = 0; i < 8; ++i) to[8 * b + i] = static_cast<uint8_t>(codes[i] | codes[i + 8] << 4);
    std::memcpy(to + dim / 2 + 2 * b, &scale.bits, 2);
  }
  if (!a.cache.codes.values) return;
  uint64_t* words = a.cache.codes.values + block * (value_bytes(dim) / 8);
  for (int32_t b = 0; b < kCodePage * dim / 16; ++b) {
    uint64_t word = uint64_t{quantise(v + 16 * b, 3.5f, codes).bits} << 48;
    for (int i = 0; i < 16; ++i) word |= static_cast<uint64_t>(codes[i]) << (3 * i);
    words[b] = word;
  }
}

void encode(const EncodeArgs& a, int32_t page, int32_t head, float* scratch) {
  const int32_t dim = a.cache.head_dim, n = kCodePage * dim;
  const int64_t block = int64_t{page} * a.cache.kv_heads + head;
  const int64_t at = block * n * static_cast<int64_t>(dtype_bytes(a.cache.dtype));
  load_rows(a.cache.k + at, a.cache.dtype, n, scratch);
  encode_keys(a, block, head, scratch, scratch + n);
  load_rows(a.cache.v + at, a.cache.dtype, n, scratch);
  encode_values(a, block, scratch, scratch + n);
}

SelectionMaps maps() { return {load_query, add_row, combine, dots, encode}; }

}  // namespace tinyserve::ops::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tinyserve::ops::cpu {
HWY_EXPORT(maps);
SelectionMaps selection_maps() { return HWY_DYNAMIC_DISPATCH(maps)(); }
}  // namespace tinyserve::ops::cpu
#endif
