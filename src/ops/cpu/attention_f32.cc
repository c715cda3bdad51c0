// Attention in F32 arithmetic on Highway vectors, for F32 caches and, on machines without BF16 products, BF16 caches.
//
// A packed block is K transposed, [head_dim, kBlock], then V, [kBlock, padded_dim], both F32. Scores of a row are
// chains of fused multiply-adds over the channels with positions in lanes, outputs chains over the positions with
// channels in lanes: neither needs a sum across lanes, and no chain mixes rows.

#include <algorithm>
#include <cmath>

#include "ops/cpu/attention_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention_f32.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tinyserve::ops::cpu::HWY_NAMESPACE {

using FloatTag = hn::CappedTag<float, 16>;
using Vec = hn::Vec<FloatTag>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));
// Rows that share the loads of a block. With 6 rows, accumulators of kWide vectors each fill the registers.
constexpr int kRows = 6;
constexpr int kWide = kLanes == 16 ? 4 : 2;

size_t q_row_bytes(int head_dim) { return static_cast<size_t>(padded_dim(head_dim)) * sizeof(float); }
size_t packed_block_bytes(int head_dim) {
  return static_cast<size_t>(head_dim + padded_dim(head_dim)) * kBlock * sizeof(float);
}

void load_q(const float* q, int head_dim, float factor, std::byte* to) {
  float* out = reinterpret_cast<float*>(to);
  for (int i = 0; i < head_dim; ++i) out[i] = q[i] * factor;
}

template <class T>
HWY_INLINE float widen(T v) {
  if constexpr (sizeof(T) == 4)
    return v;
  else
    return to_float(v);
}

template <class D>
HWY_INLINE hn::Vec<D> load_cache(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load_cache(D d, const BFloat16* p) {
  return load_bfloat16(d, reinterpret_cast<const uint16_t*>(p));
}

// [kRun, head_dim] -> [head_dim, kBlock], columns of one run.
template <class T>
HWY_INLINE void transpose_run(const T* k, int head_dim, float* to) {
  int c = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 4> d4;
  const hn::Repartition<double, decltype(d4)> d2;
  for (; c + 4 <= head_dim; c += 4)
    for (int r = 0; r < kRun; r += 4) {
      const T* p = k + static_cast<int64_t>(r) * head_dim + c;
      const auto a = load_cache(d4, p), b = load_cache(d4, p + head_dim);
      const auto e = load_cache(d4, p + 2 * head_dim), f = load_cache(d4, p + 3 * head_dim);
      const auto ab0 = hn::BitCast(d2, hn::InterleaveLower(d4, a, b)),
                 ab1 = hn::BitCast(d2, hn::InterleaveUpper(d4, a, b));
      const auto ef0 = hn::BitCast(d2, hn::InterleaveLower(d4, e, f)),
                 ef1 = hn::BitCast(d2, hn::InterleaveUpper(d4, e, f));
      hn::StoreU(hn::BitCast(d4, hn::InterleaveLower(d2, ab0, ef0)), d4, to + (c + 0) * kBlock + r);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveUpper(d2, ab0, ef0)), d4, to + (c + 1) * kBlock + r);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveLower(d2, ab1, ef1)), d4, to + (c + 2) * kBlock + r);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveUpper(d2, ab1, ef1)), d4, to + (c + 3) * kBlock + r);
    }
#endif
  for (; c < head_dim; ++c)
    for (int r = 0; r < kRun; ++r) to[c * kBlock + r] = widen(k[static_cast<int64_t>(r) * head_dim + c]);
}

template <class T>
HWY_INLINE void copy_row(const T* v, int head_dim, int padded, float* to) {
  const FloatTag d;
  int c = 0;
  for (; c + kLanes <= head_dim; c += kLanes) hn::StoreU(load_cache(d, v + c), d, to + c);
  for (; c < head_dim; ++c) to[c] = widen(v[c]);
  for (; c < padded; ++c) to[c] = 0.0f;
}

HWY_INLINE void prefetch(const std::byte* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);  // into L2: L1 has too few miss buffers
}

template <class T>
HWY_INLINE void pack(const BlockSource& s, int head_dim, std::byte* packed) {
  const int padded = padded_dim(head_dim);
  float* k = reinterpret_cast<float*>(packed);
  float* v = k + head_dim * kBlock;
  const size_t run_bytes = static_cast<size_t>(head_dim) * kRun * sizeof(T);
  for (int run = 0; run < kRunsPerBlock; ++run) {
    const int at = run * kRun;
    if (s.next_k[run]) prefetch(s.next_k[run], run_bytes);
    if (s.k[run]) transpose_run(reinterpret_cast<const T*>(s.k[run]), head_dim, k + at);
    if (s.next_v[run]) prefetch(s.next_v[run], run_bytes);
    for (int r = 0; r < kRun; ++r) {
      float* to = v + (at + r) * padded;
      if (s.v[run] && at + r >= s.begin && at + r < s.end)
        copy_row(reinterpret_cast<const T*>(s.v[run]) + static_cast<int64_t>(r) * head_dim, head_dim, padded, to);
      else
        std::fill_n(to, padded, 0.0f);
    }
  }
}
// scores[R, kBlock] = q k^T
template <int R>
HWY_INLINE void scores_of(const float* q, int q_stride, const float* k, int head_dim, int positions, float* scores) {
  const FloatTag d;
  for (int at = 0; at < positions; at += kWide * kLanes) {
    Vec acc[R][kWide];
    for (int r = 0; r < R; ++r)
      for (int w = 0; w < kWide; ++w) acc[r][w] = hn::Zero(d);
    for (int c = 0; c < head_dim; ++c) {
      Vec kv[kWide];
      for (int w = 0; w < kWide; ++w) kv[w] = hn::LoadU(d, k + c * kBlock + at + w * kLanes);
      for (int r = 0; r < R; ++r) {
        const Vec qv = hn::Set(d, q[r * q_stride + c]);
        for (int w = 0; w < kWide; ++w) acc[r][w] = hn::MulAdd(qv, kv[w], acc[r][w]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int w = 0; w < kWide; ++w) hn::StoreU(acc[r][w], d, scores + r * kBlock + at + w * kLanes);
  }
}

// One row: scores in place to probabilities; updates maximum and sum, returns what the accumulator is to be scaled by.
HWY_NOINLINE float softmax_row(float* scores, int positions, int visible_from, int visible_to, float softcap,
                               float* sum, float* maximum) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const bool masked = visible_from > 0 || visible_to < positions;
  Vec largest = hn::Set(d, kMasked);
  for (int i = 0; i < positions; i += kLanes) {
    Vec s = hn::LoadU(d, scores + i);
    if (softcap > 0) s = hn::Mul(hn::Set(d, softcap), tanh(d, s));
    if (masked) {
      const auto at = hn::Iota(di, i);
      const auto seen = hn::AndNot(hn::Lt(at, hn::Set(di, visible_from)), hn::Lt(at, hn::Set(di, visible_to)));
      s = hn::IfThenElse(hn::RebindMask(d, seen), s, hn::Set(d, kMasked));
    }
    hn::StoreU(s, d, scores + i);
    largest = hn::Max(largest, s);
  }
  const float before = *maximum, now = std::max(before, hn::GetLane(hn::MaxOfLanes(d, largest)));
  const Vec m = hn::Set(d, now), scale = exp2(d, hn::Set(d, before - now));
  Vec total = hn::Mul(hn::LoadU(d, sum), scale);
  for (int i = 0; i < positions; i += kLanes) {
    const Vec p = exp2(d, hn::Sub(hn::LoadU(d, scores + i), m));
    hn::StoreU(p, d, scores + i);
    total = hn::Add(total, p);
  }
  hn::StoreU(total, d, sum);
  *maximum = now;
  return hn::GetLane(scale);
}

// acc[R, W vectors] = acc * scale + p v for one panel of channels.
template <int R, int W>
HWY_INLINE void outputs_of(const float* p, const float* v, int padded, int positions, const float* scale, float* acc) {
  const FloatTag d;
  Vec sums[R][W];
  for (int r = 0; r < R; ++r)
    for (int w = 0; w < W; ++w) sums[r][w] = hn::Mul(hn::LoadU(d, acc + r * padded + w * kLanes), hn::Set(d, scale[r]));
  for (int i = 0; i < positions; ++i) {
    Vec row[W];
    for (int w = 0; w < W; ++w) row[w] = hn::LoadU(d, v + i * padded + w * kLanes);
    for (int r = 0; r < R; ++r) {
      const Vec pv = hn::Set(d, p[r * kBlock + i]);
      for (int w = 0; w < W; ++w) sums[r][w] = hn::MulAdd(pv, row[w], sums[r][w]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int w = 0; w < W; ++w) hn::StoreU(sums[r][w], d, acc + r * padded + w * kLanes);
}

// Not inlined: one copy for both cache dtypes, and compilers take minutes over a function that holds all of them.
template <int R>
HWY_NOINLINE void run_rows(const BlockRows& b, int row, int positions) {
  const int padded = padded_dim(b.head_dim);
  const float* k = reinterpret_cast<const float*>(b.packed);
  const float* v = k + b.head_dim * kBlock;
  const float* q = reinterpret_cast<const float*>(b.q) + row * padded;
  float* scores = reinterpret_cast<float*>(b.scratch);
  float scale[R];
  scores_of<R>(q, padded, k, b.head_dim, positions, scores);
  for (int r = 0; r < R; ++r)
    scale[r] = softmax_row(scores + r * kBlock, positions, b.first[row + r] - b.start, b.last[row + r] - b.start + 1,
                           b.softcap, b.state.sum + (row + r) * kSumLanes, b.state.maximum + row + r);
  float* acc = b.state.acc + row * padded;
  int c = 0;
  for (; c + kWide * kLanes <= padded; c += kWide * kLanes)
    outputs_of<R, kWide>(scores, v + c, padded, positions, scale, acc + c);
  for (; c < padded; c += kLanes) outputs_of<R, 1>(scores, v + c, padded, positions, scale, acc + c);
}

template <class T>
void run(const BlockSource& s, const BlockRows& b) {
  pack<T>(s, b.head_dim, b.packed);
  for (int row = 0, left = b.num_rows; left > 0;) {
    const int groups = (left + kRows - 1) / kRows, n = (left + groups - 1) / groups;
    const int last = b.last[row + n - 1], first = b.first[row];
    if (last >= b.start && first < b.start + kBlock) {
      const int positions = std::min(kBlock, (last + 1 - b.start + kRun - 1) / kRun * kRun);
      switch (n) {
        case 1:
          run_rows<1>(b, row, positions);
          break;
        case 2:
          run_rows<2>(b, row, positions);
          break;
        case 3:
          run_rows<3>(b, row, positions);
          break;
        case 4:
          run_rows<4>(b, row, positions);
          break;
        case 5:
          run_rows<5>(b, row, positions);
          break;
        default:
          run_rows<6>(b, row, positions);
          break;
      }
    }
    row += n;
    left -= n;
  }
}

void fold(const RowState& total, const RowState& part, int64_t rows, int head_dim) {
  const FloatTag d;
  const int padded = padded_dim(head_dim);
  for (int64_t r = 0; r < rows; ++r) {
    Vec lanes = hn::Zero(d);
    for (int i = 0; i < kSumLanes; i += kLanes) lanes = hn::Add(lanes, hn::LoadU(d, part.sum + r * kSumLanes + i));
    const float sum = hn::GetLane(hn::SumOfLanes(d, lanes));
    const float now = std::max(total.maximum[r], part.maximum[r]);
    const Vec x = exp2(d, hn::Set(d, total.maximum[r] - now)), y = exp2(d, hn::Set(d, part.maximum[r] - now));
    total.maximum[r] = now;
    total.sum[r * kSumLanes] = total.sum[r * kSumLanes] * hn::GetLane(x) + sum * hn::GetLane(y);
    float *to = total.acc + r * padded, *from = part.acc + r * padded;
    for (int c = 0; c < padded; c += kLanes)
      hn::StoreU(hn::MulAdd(hn::LoadU(d, from + c), y, hn::Mul(hn::LoadU(d, to + c), x)), d, to + c);
  }
}

void finish(const float* acc, float sum, int head_dim, float* out) {
  const float inverse = 1.0f / sum;
  for (int i = 0; i < head_dim; ++i) out[i] = acc[i] * inverse;
}

AttentionKernel kernel_of(DType dtype) {
  return {q_row_bytes, packed_block_bytes, load_q, dtype == DType::kF32 ? run<float> : run<BFloat16>, fold, finish};
}

}  // namespace tinyserve::ops::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tinyserve::ops::cpu {
HWY_EXPORT(kernel_of);
AttentionKernel attention_kernel_f32(DType cache_dtype) { return HWY_DYNAMIC_DISPATCH(kernel_of)(cache_dtype); }
}  // namespace tinyserve::ops::cpu
#endif
