#pragma once
// Weights that stay in GGUF's block formats: how they are laid out for linear(), and what one instruction set provides.
//
// Panels of 64 outputs as in linear_kernels.h, each of one format and one contiguous stream: groups of 32 inputs, and
// before every 8th group of a format with parts the blocks' d [64 n] and, with offsets, m [64 n], as F16. A group is
//   codes   of 4 k's together, [8 quads][64 n][4 k], in planes of one to eight of their bits:
//             8 bits  a byte each
//             4 bits  [4][64 n][4 k]: quad 2 j in the low half of plane row j, quad 2 j + 1 in the high half
//             2 bits  [2][64 n][4 k]: quad 4 j + i at bit 2 i of row j
//             1 bit   [64 n][4 k]: quad i at bit i
//           6 bits are the low 4, then the high 2; 5 are 4 and 1; 3 are 2 and 1
//   scales  [32 / part][64 n], then the offsets likewise: a signed byte each, or d and m themselves as F16 in formats
//           without parts
// which is the file's information in the file's size: scales of four and six bits alone grow to bytes (Q4_K 2.8%, Q5_K
// 2.3%, Q3_K 3.6%, Q2_K 19%).
//
// Rows are rounded to signed codes per group of 32, a group's (or part's) sum of products is an integer and exact, and
// is added in F32 as sum * scale * the row's scale. So a result is the same whether codes were unpacked in registers or
// into memory first, and for any number of rows.

#include <memory>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "ops/cpu/linear_kernels.h"
#include "tensor/block_parts.h"

namespace tinyserve {
class ThreadPool;
}

namespace tinyserve::ops::linear {

constexpr int64_t kBlockGroups = 8;  ///< groups between headers, and of an unpacked piece: its 20 KB stay in L1

constexpr int64_t block_group_bytes(BlockTraits t) {
  const int64_t numbers = (kGroup / t.part) * (t.has_offset ? 2 : 1);
  return (kGroup * t.bits / 8 + numbers * (t.has_parts ? 1 : 2)) * kPanelWidth;
}
constexpr int64_t block_header_bytes(BlockTraits t) {
  return t.has_parts ? (t.has_offset ? 2 : 1) * 2 * kPanelWidth : 0;
}
constexpr int64_t block_panel_bytes(BlockTraits t, int64_t groups) {
  return groups * block_group_bytes(t) + groups / kBlockGroups * block_header_bytes(t);
}
/// Where group `g` begins, a header in front of it not included.
constexpr int64_t block_group_at(BlockTraits t, int64_t g) {
  return g * block_group_bytes(t) + (g / kBlockGroups + 1) * block_header_bytes(t);
}
/// A group unpacked: codes as bytes, then scales and offsets as F32.
constexpr int64_t unpacked_group_bytes(BlockTraits t) {
  return (kGroup + (kGroup / t.part) * (t.has_offset ? 2 : 1) * int64_t{sizeof(float)}) * kPanelWidth;
}

struct BlockKernels {
  int64_t x_group_bytes = 0;
  int fused_rows = 0;  ///< most rows of multiply()
  /// As FormatKernels::prepare; width is a multiple of 32.
  void (*prepare)(const float* x, int64_t width, std::byte* out) = nullptr;
  struct Format {
    /// BlockArgs of a whole panel.
    void (*multiply)(const BlockArgs&) = nullptr;
    /// `groups` groups from a header (or any group, without one) on.
    void (*unpack)(const std::byte* w, int64_t groups, std::byte* out) = nullptr;
    /// BlockArgs with w unpacked.
    void (*multiply_unpacked)(const BlockArgs&) = nullptr;
  };
  Format formats[kNumBlockFormats];
};

/// Every set that was compiled and that this machine can run, best first.
std::vector<const BlockKernels*> available_block_kernels();
/// Those that go with one of available_kernels(): the best with the best, the last with the last.
const BlockKernels& block_kernels(const Kernels& like);

/// The only copy of a weight matrix. Every part of a fused one begins a panel.
struct BlockWeight : PackedWeight {
  struct Part {
    BlockFormat format;
    int64_t first_panel, first_output, out_features;
    size_t at;  ///< of the first panel, in data
  };
  AlignedBuffer data;
  std::vector<Part> parts;
  int64_t panels = 0, groups = 0;
};

/// parts: blocks, not transposed.
std::unique_ptr<BlockWeight> pack_blocks(ThreadPool& pool, std::span<const WeightSource> parts);

/// Panels [begin, end) for at most kTileRows prepared rows at a time. sums: [kTileRows, 64]; unpacked: kUnpackedBytes.
constexpr int64_t kUnpackedBytes = kBlockGroups * 4 * kGroup * kPanelWidth;
void run_block_panels(const BlockKernels& blocks, const Kernels& kernels, const LinearArgs& args,
                      const BlockWeight& weight, const std::byte* x, int64_t begin, int64_t end, int64_t tile_rows,
                      float* sums, std::byte* unpacked);

}  // namespace tinyserve::ops::linear
