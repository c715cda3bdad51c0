#pragma once
// The innermost parts of query-aware selection, one implementation per instruction set. selection.cc says when each runs.
//
// Logits are in units of log2 here. A tile is 16 pages of one KV head; unused places of a last tile repeat a page, and what
// comes out for them is not looked at. Heads are the query heads of the KV head. Everything a kernel computes for a page and head depends
// on these alone, in a fixed order.

#include <cstddef>
#include <cstdint>

#include "ops/ops.h"

namespace tinyserve::ops::cpu {

constexpr int kTilePages = 16;
constexpr int kTileTokens = kTilePages * kCodePage;
constexpr int kHeadsAtOnce = 8;  ///< that score() takes
constexpr int kPairs = 16;       ///< rows that add_means() and add_values() take are twice as many
constexpr int32_t kNumKeys = 1024;
/// Channels are summed in blocks of this many, the last one padded.
constexpr int kChannelBlock = 64;
constexpr int padded_channels(int head_dim) { return (head_dim + kChannelBlock - 1) / kChannelBlock * kChannelBlock; }

/// Queries in their head's axes, rounded to 8 bits.
struct CodedQueries {
  const int32_t* q = nullptr;      ///< [groups of 4 axes, heads], four signed bytes each
  const int32_t* start = nullptr;  ///< [heads]: what sums begin with: minus 128 times the sum of the bytes of the grade's axes
  int32_t heads = 0;               ///< at most kHeadsAtOnce
};

struct ChosenTokens {
  int32_t exact = 0, coded = 0;     ///< wanted: the best, and the best of what is left
  /// Above 0: only the fewest of the best, `exact` at most, that have this share of all, a key k having exp((k - 1023)
  /// / 32), beside `elsewhere` that is in none of them.
  float top_p = 0, elsewhere = 0;
  int32_t *exact_tokens = nullptr, *coded_tokens = nullptr;  ///< token numbers, ascending
  int32_t *num_exact = nullptr, *num_coded = nullptr;
  uint16_t* left = nullptr;         ///< [pages]: bits of the tokens that are neither
  int32_t *touched = nullptr, *num_touched = nullptr;  ///< pages with a token that is either, ascending
  uint16_t* scratch = nullptr;      ///< as large as the keys, and 32 more
};
/// Lists of tokens and pages have room for so many more than they will hold: vectors are stored whole.
constexpr int32_t kListSlack = 16;

/// Where the codes of a tile's pages lie.
struct TileCodes {
  const uint8_t *coarse[kTilePages], *fine[kTilePages];
  bool with_fine = false;
  int32_t coarse_bytes = 0, fine_bytes = 0;  ///< of a page
  /// Asks for those of pages [begin, end). Inlined: GCC drops a call of a function that does nothing but ask.
  __attribute__((always_inline)) void prefetch(int begin, int end) const {
    for (int p = begin; p < end; ++p) {
      lines(coarse[p], coarse_bytes);
      if (with_fine) lines(fine[p], fine_bytes);
    }
  }

 private:
  __attribute__((always_inline)) static void lines(const uint8_t* p, int32_t bytes) {
    for (int32_t at = 0; at < bytes; at += 64) __builtin_prefetch(p + at, 0, 2);
    __builtin_prefetch(p + bytes - 1, 0, 2);
  }
};

/// Cache lines to ask for while a kernel computes, spread evenly: in bursts they fill the core's miss buffers and stall its loads.
struct Lines {
  static constexpr int kMost = 512;
  const char* at[kMost];
  int count = 0;
  /// What does not fit is left out.
  void add(const void* p, int64_t bytes) {
    const char* line = reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(p) & ~uintptr_t{63});
    for (const char* end = static_cast<const char*>(p) + bytes; line < end && count < kMost; line += 64) at[count++] = line;
  }
  /// Those of step i of n.
  void prefetch(int i, int n) const {
    const int end = (i + 1) * count / n;
    for (int line = i * count / n; line < end; ++line) __builtin_prefetch(at[line], 0, 2);
  }
};

/// Sums of weighted values from their codes.
struct SelectionSums {
  /// acc[head] += sum over `count` <= 2 kPairs pages of weights[head * stride + i] * mean value. acc: [heads, padded_channels], in an
  /// order of its own that read_acc() undoes. `scratch`: kScratchBytes.
  void (*add_means)(const uint8_t* const* means, int32_t count, int32_t head_dim, const float* weights, int64_t stride,
                    int32_t heads, float* acc, std::byte* scratch, const Lines& ahead);
  /// The same of the coded values of tokens.
  void (*add_values)(const uint64_t* const* values, int32_t count, int32_t head_dim, const float* weights,
                     int64_t stride, int32_t heads, float* acc, std::byte* scratch, const Lines& ahead);
  /// Channels [0, head_dim) of one head's acc, in order.
  void (*read_acc)(const float* acc, int32_t head_dim, float* out);
};

struct SelectionKernel {
  const char* name;
  /// sums[head, page, token] = sum over the axes of q * level, of the coarse grade, or, with_fine, of the fine one. Asks for `ahead`,
  /// unless null, meanwhile.
  void (*score)(const HeadBits& bits, const TileCodes& codes, const CodedQueries& q, int32_t* sums, const TileCodes* ahead);
  /// The largest of each page of a tile of one head; returns the largest of them.
  int32_t (*maxima)(const int32_t* sums, int32_t* largest);
  /// Sums over each page of 2^(sum * step + base); relative error 1e-4. With `each`, each token's value goes there too; then exponents are
  /// cut at 126 and the relative error is 3e-6.
  void (*masses)(const int32_t* sums, float step, float base, float* each, float* mass);
  /// Sums over kTilePages pages, pages[i] of `each`, of the tokens whose bit in left[pages[i]] is set.
  void (*masses_left)(const float* each, const uint16_t* left, const int32_t* pages, float* mass);
  /// Sum of n values, n a multiple of 16.
  float (*total)(const float* values, int64_t n);
  /// Keys (SparseAttentionArgs) of 16 pages from their largest sums [heads at stride]: of the largest sum * step + base.
  void (*page_keys)(const int32_t* largest, int64_t stride, const float* step, const float* base, int32_t heads,
                    uint16_t* keys);
  /// Keys of the tokens of `pages` pages from their values [heads at head_stride][pages][16], given 1 / total of each head.
  void (*token_keys)(const float* each, int64_t head_stride, const float* inverse, int32_t heads, int32_t pages,
                     uint16_t* keys);
  /// The largest key that at least `count` of n keys reach.
  int32_t (*reached_by)(const uint16_t* keys, int64_t n, int64_t count);
  /// Pages whose keys are not below `least`, ascending. keys has room up to a multiple of 16. Returns how many.
  int32_t (*choose_pages)(const uint16_t* keys, int32_t pages, int32_t least, int32_t* chosen);
  /// The best tokens of `pages` pages by their keys; of equal ones the first.
  void (*choose_tokens)(const uint16_t* keys, int32_t pages, const ChosenTokens& to);
  /// Pages for which some head's mass * inverse is above 0 and not below `least`, ascending; each head's masses [pages at stride] are
  /// moved together accordingly. Masses of the places up to a multiple of 16 are zero. Returns how many.
  int32_t (*keep_heavy)(float* mass, int64_t stride, const float* inverse, int32_t heads, int32_t pages, float least,
                        int32_t* kept);
  SelectionSums sums;
};
constexpr size_t kSelectionScratchBytes = 8192;

const SelectionKernel& selection_kernel_avx2();
SelectionSums selection_sums_avx512();
/// With VNNI, VBMI and BF16; null where the machine has not all of them.
const SelectionKernel* selection_kernel_avx512();

/// A query in its head's axes.
struct AxesArgs {
  const SelectionMap* map = nullptr;
  int32_t head = 0, head_dim = 0;
  const float* q = nullptr;
  float scale = 0;
};
struct AxesQuery {
  float step = 0;                              ///< logit of a sum of 1, in units of log2, as are the shifts
  float coarse_shift = 0, fine_shift = 0;      ///< logit of a sum of 0
  int32_t coarse_start = 0, fine_start = 0;    ///< CodedQueries::start
};

/// What is the same for all instruction sets: Highway's chosen target. Read under a ScopedIsa.
struct SelectionMaps {
  /// bytes: [head_dim] signed, zero for axes without bits. scratch: head_dim floats.
  AxesQuery (*load_query)(const AxesArgs& args, int8_t* bytes, float* scratch);
  /// acc[head] += weights[head * stride] * v; acc: [heads, head_dim].
  void (*add_row)(const std::byte* v, DType dtype, int32_t head_dim, const float* weights, int64_t stride, int32_t heads,
                  float* acc);
  /// to[i] = the sum over heads, or the largest, of values[head * stride + i] * factors[head]. n is a multiple of 16.
  void (*combine)(const float* values, int64_t stride, const float* factors, int32_t heads, int64_t n, bool largest,
                  float* to);
  /// dots[head] = q[head, head_dim] . k
  void (*dots)(const std::byte* k, DType dtype, int32_t head_dim, const float* q, int32_t heads, float* dots);
  /// Codes of one page and KV head, of its mean and of its values. scratch: encode_scratch_floats.
  void (*encode)(const EncodeArgs& args, int32_t page, int32_t head, float* scratch);
};
SelectionMaps selection_maps();
constexpr int64_t encode_scratch_floats(int head_dim) { return int64_t{2 * kCodePage + 1} * head_dim; }

}  // namespace tinyserve::ops::cpu
