// linear() kernels for weights in GGUF's block formats (block_panels.h): AVX-512 with VNNI, AVX-512 and AVX2 from one
// source. Two ways to the same bits: few rows unpack codes in registers while the weights stream by; many rows multiply
// pieces of a panel that were unpacked into L1 before.

#include <algorithm>
#include <limits>

#include "ops/cpu/block_panels.h"

#define HWY_WANT_AVX3_DL  // for VNNI
#define HWY_DISABLED_TARGETS (HWY_SSE4 | HWY_SSSE3)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/block_kernels.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
#if HWY_TARGET == HWY_AVX3_DL  // Highway 1.0.3 detects VNNI with this target but does not turn it on
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni")
#else
HWY_BEFORE_NAMESPACE();
#endif
namespace tinyserve::ops::linear::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::CappedTag<float, 16> df;
constexpr hn::RebindToSigned<decltype(df)> di;
constexpr hn::RebindToUnsigned<decltype(df)> du;
using VF = hn::Vec<decltype(df)>;
using VI = hn::Vec<decltype(di)>;
using VU = hn::Vec<decltype(du)>;
constexpr bool kVnni = HWY_TARGET == HWY_AVX3_DL;
constexpr int kLanes = HWY_TARGET == HWY_AVX2 ? 8 : 16;
constexpr int kVectors = static_cast<int>(kPanelWidth) / kLanes;
constexpr int kRegisters = HWY_TARGET == HWY_AVX2 ? 16 : 32;

// ---- Rows. Codes are signed; a NaN or an infinity ends in the scale and makes the row's outputs non-finite.

struct XGroup {
#if HWY_TARGET == HWY_AVX3_DL
  int32_t quads[8];  // four codes each, as bytes
#else
  int32_t quads[8][2];  // (x0, x2) and (x1, x3) as 16 bits, the way multiply-add wants them
#endif
  float scale;
  int32_t sums[2];  // of the codes of each half
};

HWY_INLINE void put_quad(const int32_t* c, XGroup& to, int quad) {
  const auto bits = [](int32_t v, uint32_t mask, int shift) { return (static_cast<uint32_t>(v) & mask) << shift; };
#if HWY_TARGET == HWY_AVX3_DL
  to.quads[quad] =
      static_cast<int32_t>(bits(c[0], 255, 0) | bits(c[1], 255, 8) | bits(c[2], 255, 16) | bits(c[3], 255, 24));
#else
  for (int i = 0; i < 2; ++i)
    to.quads[quad][i] = static_cast<int32_t>(bits(c[i], 0xFFFF, 0) | bits(c[i + 2], 0xFFFF, 16));
#endif
}

void prepare(const float* x, int64_t width, std::byte* out) {
  XGroup* to = reinterpret_cast<XGroup*>(out);
  for (int64_t k = 0; k < width; k += kGroup, ++to) {
    alignas(64) int32_t codes[kGroup];
    auto largest = hn::Zero(di);  // by bits, where NaN and infinity are the largest
    for (int i = 0; i < kGroup; i += kLanes)
      largest = hn::Max(largest, hn::BitCast(di, hn::Abs(hn::LoadU(df, x + k + i))));
    const float maximum = hn::GetLane(hn::BitCast(df, hn::MaxOfLanes(di, largest)));
    const float scale = maximum / 127.0f;
    // Below the normal range 1 / scale overflows; such inputs count as zero.
    const VF inverse = hn::Set(df, scale < std::numeric_limits<float>::min() ? 0.0f : 1.0f / scale);
    const bool finite = maximum <= std::numeric_limits<float>::max();
    for (int i = 0; i < kGroup; i += kLanes)
      hn::Store(finite ? hn::NearestInt(hn::Mul(hn::LoadU(df, x + k + i), inverse)) : hn::Set(di, 1), di, codes + i);
    to->scale = scale;
    for (int half = 0; half < 2; ++half) {
      VI sum = hn::Load(di, codes + 16 * half);
      if (kLanes < 16) sum = hn::Add(sum, hn::Load(di, codes + 16 * half + 8));
      to->sums[half] = hn::GetLane(hn::SumOfLanes(di, sum));
    }
    for (int quad = 0; quad < 8; ++quad) put_quad(codes + 4 * quad, *to, quad);
  }
}

// sum + four products in every lane.
HWY_INLINE VI dot(VI sum, VU codes, const XGroup& x, int quad) {
#if HWY_TARGET == HWY_AVX3_DL
  return VI{_mm512_dpbusd_epi32(sum.raw, codes.raw, _mm512_set1_epi32(x.quads[quad]))};
#else
  constexpr hn::Repartition<int16_t, decltype(df)> di16;
  const auto low = hn::Set(du, 0x00FF00FFu);
  VI unused = hn::Zero(di);  // x86 leaves the second sum alone
  sum = hn::ReorderWidenMulAccumulate(di, hn::BitCast(di16, hn::And(codes, low)),
                                      hn::BitCast(di16, hn::Set(di, x.quads[quad][0])), sum, unused);
  return hn::ReorderWidenMulAccumulate(di, hn::BitCast(di16, hn::And(hn::ShiftRight<8>(codes), low)),
                                       hn::BitCast(di16, hn::Set(di, x.quads[quad][1])), sum, unused);
#endif
}

// ---- Weights. A source says where a group's codes, scales and offsets are; `v` counts vectors of a panel.

template <int kShift>
HWY_INLINE VU shifted(VU bits) {  // right, or left when negative
  if constexpr (kShift > 0)
    return hn::ShiftRight<kShift>(bits);
  else if constexpr (kShift < 0)
    return hn::ShiftLeft<-kShift>(bits);
  else
    return bits;
}

// The kBits from kAt on of quad kQuad's codes, from their plane, at bit kAt.
template <int kBits, int kAt, int kQuad>
HWY_INLINE VU from_plane(const std::byte* plane, int v) {
  constexpr int kTogether = 8 / kBits;
  const VU bits =
      hn::LoadU(du, reinterpret_cast<const uint32_t*>(plane) + kQuad / kTogether * kPanelWidth + v * kLanes);
  constexpr uint32_t kMask = ((1u << kBits) - 1) << kAt;
  return hn::And(shifted<kQuad % kTogether * kBits - kAt>(bits), hn::Set(du, kMask * 0x01010101u));
}

template <BlockFormat kFormat>
struct Packed {
  static constexpr BlockTraits kTraits = block_traits(kFormat);
  static constexpr int64_t kGroupBytes = block_group_bytes(kTraits);
  static constexpr int64_t kNumberBytes = kTraits.has_parts ? 1 : 2;

  static const std::byte* group(const std::byte* w, int64_t g) { return w + block_group_at(kTraits, g); }
  static const std::byte* header(const std::byte* w, int64_t g) {
    return w + block_group_at(kTraits, g / kBlockGroups * kBlockGroups) - block_header_bytes(kTraits);
  }

  template <int kQuad>
  HWY_INLINE static VU codes(const std::byte* group, int v) {
    constexpr int64_t kPlane4 = 4 * 4 * kPanelWidth, kPlane2 = 2 * 4 * kPanelWidth;
    if constexpr (kTraits.bits == 8)
      return hn::LoadU(du, reinterpret_cast<const uint32_t*>(group) + kQuad * kPanelWidth + v * kLanes);
    else if constexpr (kTraits.bits == 6)
      return hn::Or(from_plane<4, 0, kQuad>(group, v), from_plane<2, 4, kQuad>(group + kPlane4, v));
    else if constexpr (kTraits.bits == 5)
      return hn::Or(from_plane<4, 0, kQuad>(group, v), from_plane<1, 4, kQuad>(group + kPlane4, v));
    else if constexpr (kTraits.bits == 4)
      return from_plane<4, 0, kQuad>(group, v);
    else if constexpr (kTraits.bits == 3)
      return hn::Or(from_plane<2, 0, kQuad>(group, v), from_plane<1, 2, kQuad>(group + kPlane2, v));
    else
      return from_plane<2, 0, kQuad>(group, v);
  }
  HWY_INLINE static VF scale(const std::byte* group, const std::byte* header, int part, int v) {
    return number(group + kGroup * kTraits.bits / 8 * kPanelWidth, header, part, v);
  }
  HWY_INLINE static VF offset(const std::byte* group, const std::byte* header, int part, int v) {
    constexpr int64_t kParts = kGroup / kTraits.part;
    return number(group + (kGroup * kTraits.bits / 8 + kParts * kNumberBytes) * kPanelWidth, header + 2 * kPanelWidth,
                  part, v);
  }

 private:
  HWY_INLINE static VF half(const std::byte* p, int v) {
    constexpr hn::Rebind<uint16_t, decltype(df)> du16;
    constexpr hn::Rebind<hwy::float16_t, decltype(df)> df16;
    return hn::PromoteTo(df, hn::BitCast(df16, hn::LoadU(du16, reinterpret_cast<const uint16_t*>(p) + v * kLanes)));
  }
  HWY_INLINE static VF number(const std::byte* numbers, const std::byte* common, int part, int v) {
    if constexpr (!kTraits.has_parts) return half(numbers, v);
    constexpr hn::Rebind<int8_t, decltype(df)> di8;
    const auto bytes = hn::LoadU(di8, reinterpret_cast<const int8_t*>(numbers) + part * kPanelWidth + v * kLanes);
    return hn::Mul(half(common, v), hn::ConvertTo(df, hn::PromoteTo(di, bytes)));
  }
};

template <BlockFormat kFormat>
struct Unpacked {
  static constexpr BlockTraits kTraits = block_traits(kFormat);
  static constexpr int64_t kGroupBytes = unpacked_group_bytes(kTraits);

  static const std::byte* group(const std::byte* w, int64_t g) { return w + g * kGroupBytes; }
  static const std::byte* header(const std::byte* w, int64_t) { return w; }
  template <int kQuad>
  HWY_INLINE static VU codes(const std::byte* group, int v) {
    return hn::LoadU(du, reinterpret_cast<const uint32_t*>(group) + kQuad * kPanelWidth + v * kLanes);
  }
  HWY_INLINE static VF scale(const std::byte* group, const std::byte*, int part, int v) {
    return hn::LoadU(df, reinterpret_cast<const float*>(group) + (kGroup / 4 + part) * kPanelWidth + v * kLanes);
  }
  HWY_INLINE static VF offset(const std::byte* group, const std::byte*, int part, int v) {
    return scale(group, nullptr, static_cast<int>(kGroup) / kTraits.part + part, v);
  }
};

// ---- Products.

// Adds the products of quads [kQuad, kEnd) of one group.
template <class Source, int kQuad, int kEnd, int R, int V>
HWY_INLINE void add_quads(const std::byte* group, int first, const XGroup* const (&x)[R], VI (&sum)[R][V]) {
  if constexpr (kQuad < kEnd) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const VU codes = Source::template codes<kQuad>(group, first + v);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r][v] = dot(sum[r][v], codes, *x[r], kQuad);
    }
    add_quads<Source, kQuad + 1, kEnd, R, V>(group, first, x, sum);
  }
}

template <class Source, int kPart, int R, int V, bool kInRegisters>
HWY_INLINE void add_part(const std::byte* group, const std::byte* header, int first, const XGroup* const (&x)[R],
                         float* acc_rows, bool zero, VF (&acc)[R][V]) {
  constexpr BlockTraits kTraits = Source::kTraits;
  constexpr int kQuads = kTraits.part / 4;
  VI sum[R][V];
  int32_t sums[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    sums[r] = kTraits.part == 32 ? x[r]->sums[0] + x[r]->sums[1] : x[r]->sums[kPart];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[r][v] = kTraits.zero == 0 ? hn::Zero(di) : hn::Set(di, -kTraits.zero * sums[r]);
  }
  add_quads<Source, kPart * kQuads, (kPart + 1) * kQuads, R, V>(group, first, x, sum);
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const VF scale = Source::scale(group, header, kPart, first + v);
    const VF offset = kTraits.has_offset ? Source::offset(group, header, kPart, first + v) : scale;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      float* at = acc_rows + r * kPanelWidth + (first + v) * kLanes;
      VF y = kInRegisters ? acc[r][v] : zero ? hn::Zero(df) : hn::LoadU(df, at);
      y = hn::MulAdd(hn::Mul(hn::ConvertTo(df, sum[r][v]), scale), hn::Set(df, x[r]->scale), y);
      if (kTraits.has_offset) y = hn::NegMulAdd(offset, hn::Set(df, x[r]->scale * static_cast<float>(sums[r])), y);
      if (kInRegisters)
        acc[r][v] = y;
      else
        hn::StoreU(y, df, at);
    }
  }
}

// R rows and V vectors of a panel from vector `first` on. kFetch: the weights come from memory; two groups ahead of
// them pay (four rows of Q5_0: 21 ms without, 15 with, for the 0.5B model's matrices on one core of Zen 5).
template <class Source, int R, int V, bool kFetch>
void tile(const BlockArgs& a, int64_t row, int first) {
  constexpr bool kInRegisters = 2 * R * V + V + 1 <= kRegisters;
  float* acc_rows = a.acc + row * kPanelWidth;
  VF acc[R][V];
  if (kInRegisters)
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v)
        acc[r][v] = a.first ? hn::Zero(df) : hn::LoadU(df, acc_rows + r * kPanelWidth + (first + v) * kLanes);
  for (int64_t g = 0; g < a.groups; ++g) {
    const std::byte *group = Source::group(a.w, g), *header = Source::header(a.w, g);
    const XGroup* x[R];
    for (int r = 0; r < R; ++r) x[r] = reinterpret_cast<const XGroup*>(a.x + (row + r) * a.x_row_bytes) + g;
    if (kFetch)
      for (int64_t i = 0; i < Source::kGroupBytes; i += 64)
        __builtin_prefetch(group + 2 * Source::kGroupBytes + i, 0, 2);
    add_part<Source, 0, R, V, kInRegisters>(group, header, first, x, acc_rows, a.first && g == 0, acc);
    if constexpr (Source::kTraits.part == 16)
      add_part<Source, 1, R, V, kInRegisters>(group, header, first, x, acc_rows, false, acc);
  }
  if (kInRegisters)
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) hn::StoreU(acc[r][v], df, acc_rows + r * kPanelWidth + (first + v) * kLanes);
}

// The rows of one tile; few rows take as much of a panel's width as they can, to unpack codes once.
constexpr int kFusedRows = kVnni ? 6 : kRegisters == 32 ? 2 : 1;
constexpr int kTileRows = kRegisters == 32 ? 6 : 3, kTileVectors = 2;

template <BlockFormat kFormat, int R>
void multiply_fused(const BlockArgs& a, int64_t row, int rows) {
  if constexpr (R > 1) {
    if (rows < R) return multiply_fused<kFormat, R - 1>(a, row, rows);
  }
  for (int v = 0; v < kVectors; v += 4) tile<Packed<kFormat>, R, 4, true>(a, row, v);
}

template <BlockFormat kFormat, int R>
void multiply_rows(const BlockArgs& a, int64_t row, int rows) {
  if constexpr (R > 1) {
    if (rows < R) return multiply_rows<kFormat, R - 1>(a, row, rows);
  }
  for (int v = 0; v < kVectors; v += kTileVectors) tile<Unpacked<kFormat>, R, kTileVectors, false>(a, row, v);
}

// multiply(args, first row, rows) for tiles of at most `most` rows, as even as they come.
template <class Multiply>
HWY_INLINE void for_tiles(const BlockArgs& a, int most, Multiply multiply) {
  const int64_t tiles = (a.rows + most - 1) / most;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t begin = a.rows * t / tiles, end = a.rows * (t + 1) / tiles;
    multiply(a, begin, static_cast<int>(end - begin));
  }
}

template <BlockFormat kFormat>
void multiply(const BlockArgs& a) {
  for_tiles(a, kFusedRows, multiply_fused<kFormat, kFusedRows>);
}

template <BlockFormat kFormat>
void multiply_unpacked(const BlockArgs& a) {
  for_tiles(a, kTileRows, multiply_rows<kFormat, kTileRows>);
}

template <BlockFormat kFormat, int kQuad = 0>
HWY_INLINE void unpack_codes(const std::byte* group, std::byte* out) {
  if constexpr (kQuad < 8) {
    for (int v = 0; v < kVectors; ++v)
      hn::Store(Packed<kFormat>::template codes<kQuad>(group, v), du,
                reinterpret_cast<uint32_t*>(out) + kQuad * kPanelWidth + v * kLanes);
    unpack_codes<kFormat, kQuad + 1>(group, out);
  }
}

template <BlockFormat kFormat>
void unpack(const std::byte* w, int64_t groups, std::byte* out) {
  using Source = Packed<kFormat>;
  constexpr int kParts = static_cast<int>(kGroup) / Source::kTraits.part;
  for (int64_t g = 0; g < groups; ++g, out += Unpacked<kFormat>::kGroupBytes) {
    // The next piece, which is wanted when this one has been multiplied (8 rows: 41 ms without, 28 with, as above).
    for (int64_t i = 0; i < Source::kGroupBytes; i += 64)
      __builtin_prefetch(Source::group(w, g) + kBlockGroups * Source::kGroupBytes + i, 0, 2);
    const std::byte *group = Source::group(w, g), *header = Source::header(w, g);
    unpack_codes<kFormat>(group, out);
    float* numbers = reinterpret_cast<float*>(out + kGroup * kPanelWidth);
    for (int part = 0; part < kParts; ++part)
      for (int v = 0; v < kVectors; ++v) {
        hn::Store(Source::scale(group, header, part, v), df, numbers + part * kPanelWidth + v * kLanes);
        if (Source::kTraits.has_offset)
          hn::Store(Source::offset(group, header, part, v), df, numbers + (kParts + part) * kPanelWidth + v * kLanes);
      }
  }
}

template <BlockFormat kFormat>
constexpr BlockKernels::Format of() {
  return {multiply<kFormat>, unpack<kFormat>, multiply_unpacked<kFormat>};
}

constexpr BlockKernels kBlockKernels{
    sizeof(XGroup),
    kVnni ? 2 * kFusedRows : kFusedRows,  // a panel that a second tile reads again comes from L2
    prepare,
    {of<BlockFormat::kQ4_0>(), of<BlockFormat::kQ4_1>(), of<BlockFormat::kQ5_0>(), of<BlockFormat::kQ5_1>(),
     of<BlockFormat::kQ8_0>(), of<BlockFormat::kQ2K>(), of<BlockFormat::kQ3K>(), of<BlockFormat::kQ4K>(),
     of<BlockFormat::kQ5K>(), of<BlockFormat::kQ6K>()}};

}  // namespace tinyserve::ops::linear::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace tinyserve::ops::linear {

std::vector<const BlockKernels*> available_block_kernels() {
  std::vector<const BlockKernels*> out;
  const int64_t supported = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_AVX3_DL
  if (supported & HWY_AVX3_DL) out.push_back(&N_AVX3_DL::kBlockKernels);
#endif
#if HWY_TARGETS & HWY_AVX3
  if (supported & HWY_AVX3) out.push_back(&N_AVX3::kBlockKernels);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (supported & HWY_AVX2) out.push_back(&N_AVX2::kBlockKernels);
#endif
  return out;
}

}  // namespace tinyserve::ops::linear
#endif
