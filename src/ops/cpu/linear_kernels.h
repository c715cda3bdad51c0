#pragma once
// What one instruction set must provide for linear(), and the layouts that all of them share.
//
// Weights: panels of 64 outputs; within a panel groups of 32 inputs, one after the other, so a panel is one contiguous
// stream. N is padded to 64 and K to 32 with zeros (BF16 and F32) or codes of zero (INT8). One group of one panel:
//   kF32    [32 k][64 n] float
//   kBF16   [16 k/2][64 n][2 k] bfloat16        (oneDNN calls the whole matrix BA16a64b2a)
//   kInt8   [8 k/4][64 n][4 k] uint8 code = q + 128, then [64 n] bfloat16 scale, w = q * scale
// Activations are prepared row by row into groups of 32 inputs, in a form that each instruction set chooses.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/ops.h"

namespace tinyserve::ops::linear {

constexpr int64_t kPanelWidth = 64;
constexpr int64_t kGroup = 32;
static_assert(kGroup == kInt8Group);

constexpr int64_t weight_group_bytes(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return kGroup * kPanelWidth * 4;
    case WeightFormat::kBF16:
      return kGroup * kPanelWidth * 2;
    case WeightFormat::kInt8:
      return kPanelWidth * 2 + kGroup * kPanelWidth;
    case WeightFormat::kBlocks:
      break;  // see block_panels.h
  }
  return 0;
}

/// Part of a panel times some rows: acc[r, n] (+)= sum over the block's inputs of x[r, k] w[n, k].
struct BlockArgs {
  const std::byte* w = nullptr;  ///< first group of the block
  int64_t groups = 0;            ///< groups of 32 inputs in the block
  const std::byte* x = nullptr;  ///< prepared row 0 at the block's first group
  int64_t x_row_bytes = 0;
  int64_t rows = 0;
  float* acc = nullptr;                 ///< [rows, 64]
  bool first = false;                   ///< start from zero instead of acc
  const std::byte* prefetch = nullptr;  ///< what will be read after this block: as many bytes as the block, or null
};

/// acc [rows, 64] to y: y = (accumulate ? y : 0) + (acc + bias), the first `columns` of each row.
struct StoreArgs {
  const float* acc = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  const float* bias = nullptr;
  float* y = nullptr;
  int64_t y_stride = 0;
  bool accumulate = false;
};

struct FormatKernels {
  int64_t x_group_bytes = 0;  ///< bytes of 32 prepared inputs of one row
  /// Prepares one row of `width` inputs, padding it with zeros to a multiple of 32. out is 8-byte aligned.
  void (*prepare)(const float* x, int64_t width, std::byte* out) = nullptr;
  void (*block)(const BlockArgs&) = nullptr;
  int one_pass_rows = 0;         ///< up to so many rows, block() reads the weights once
  int64_t one_row_prefetch = 0;  ///< bytes ahead of a single row that fetching pays
};

struct Kernels {
  const char* name = nullptr;
  FormatKernels f32, bf16, int8;
  void (*store)(const StoreArgs&) = nullptr;

  const FormatKernels& of(WeightFormat format) const {
    return format == WeightFormat::kF32 ? f32 : format == WeightFormat::kBF16 ? bf16 : int8;
  }
};

/// Every set that was compiled and that this machine can run, best first; never empty.
const std::vector<const Kernels*>& available_kernels();

// One per source file; each appends what this machine can run, best first.
void append_avx512_kernels(std::vector<const Kernels*>& out);   // AVX512-BF16 and VNNI
void append_highway_kernels(std::vector<const Kernels*>& out);  // AVX-512, AVX2 and what is below

}  // namespace tinyserve::ops::linear
