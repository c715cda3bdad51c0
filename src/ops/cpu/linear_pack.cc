#include "ops/cpu/linear_pack.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/thread_pool.h"
#include "ops/cpu/linear_kernels.h"
#include "ops/int8_format.h"

namespace tinyserve::ops::linear {
namespace {

// One group of one panel on its way from the checkpoint to the packed layout.
struct Tile {
  alignas(64) float values[kPanelWidth][kGroup];
};

// A run of outputs [begin, end) of the whole matrix that comes from one part.
struct Piece {
  const WeightSource* source;
  int64_t begin, end;
};

float load(const std::byte* p, DType dtype) {
  if (dtype == DType::kF32) {
    float f;
    std::memcpy(&f, p, 4);
    return f;
  }
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return dtype == DType::kBF16 ? to_float(BFloat16{bits}) : to_float(Float16{bits});
}

class Packer {
 public:
  Packer(std::span<const WeightSource> parts, PanelWeight& out) : out_(out) {
    int64_t begin = 0;
    for (const WeightSource& part : parts) {
      const int64_t n = part.view.shape[part.transposed ? 1 : 0];
      pieces_.push_back({&part, begin, begin + n});
      begin += n;
      transposed_ |= part.transposed;
    }
  }

  // A thread's panels, in the order in which the checkpoint has the values.
  void run(int64_t begin, int64_t end) const {
    if (transposed_) {
      for (int64_t g = 0; g < out_.groups; ++g)
        for (int64_t p = begin; p < end; ++p) pack_group(p, g);
    } else {
      for (int64_t p = begin; p < end; ++p)
        for (int64_t g = 0; g < out_.groups; ++g) pack_group(p, g);
    }
  }

 private:
  void pack_group(int64_t panel, int64_t group) const {
    std::byte* to =
        const_cast<std::byte*>(out_.data.data()) + panel * out_.panel_bytes() + group * weight_group_bytes(out_.format);
    Tile tile;
    fetch(panel, group, tile);
    switch (out_.format) {
      case WeightFormat::kF32:
        return to_f32(tile, reinterpret_cast<float*>(to));
      case WeightFormat::kBF16:
        return to_bf16(tile, reinterpret_cast<uint32_t*>(to));
      case WeightFormat::kInt8:
        return to_int8(tile, to);
      case WeightFormat::kBlocks:
        break;  // pack_blocks()
    }
  }

  void fetch(int64_t panel, int64_t group, Tile& tile) const {
    const int64_t n0 = panel * kPanelWidth, k0 = group * kGroup;
    const int64_t ks = std::min(kGroup, out_.in_features - k0);
    if (ks < kGroup || n0 + kPanelWidth > out_.out_features) std::memset(&tile, 0, sizeof tile);
    for (const Piece& piece : pieces_) {
      const int64_t begin = std::max(n0, piece.begin), end = std::min(n0 + kPanelWidth, piece.end);
      const TensorView& view = piece.source->view;
      const int64_t size = static_cast<int64_t>(dtype_bytes(view.dtype));
      if (piece.source->transposed) {
        for (int64_t k = 0; k < ks; ++k) {
          const std::byte* from = view.data + ((k0 + k) * view.shape[1] + begin - piece.begin) * size;
          for (int64_t n = begin; n < end; ++n, from += size) tile.values[n - n0][k] = load(from, view.dtype);
        }
      } else {
        for (int64_t n = begin; n < end; ++n)
          view.read((n - piece.begin) * out_.in_features + k0, ks, tile.values[n - n0]);
      }
    }
  }

  static void to_f32(const Tile& tile, float* to) {
    for (int64_t k = 0; k < kGroup; ++k)
      for (int64_t n = 0; n < kPanelWidth; ++n) *to++ = tile.values[n][k];
  }

  static void to_bf16(const Tile& tile, uint32_t* to) {
    for (int64_t k = 0; k < kGroup; k += 2)
      for (int64_t n = 0; n < kPanelWidth; ++n)
        *to++ = to_bfloat16(tile.values[n][k]).bits | uint32_t{to_bfloat16(tile.values[n][k + 1]).bits} << 16;
  }

  static void to_int8(Tile& tile, std::byte* to) {
    uint16_t scales[kPanelWidth];
    uint8_t codes[kGroup / 4][kPanelWidth][4];
    for (int64_t n = 0; n < kPanelWidth; ++n) {
      const BFloat16 bits = int8_scale(tile.values[n], kGroup);
      const float scale = to_float(bits);
      scales[n] = bits.bits;
      for (int64_t k = 0; k < kGroup; ++k)
        codes[k / 4][n][k % 4] = static_cast<uint8_t>(int8_code(tile.values[n][k], scale) + 128);
    }
    std::memcpy(to, codes, sizeof codes);
    std::memcpy(to + sizeof codes, scales, sizeof scales);
  }

  PanelWeight& out_;
  std::vector<Piece> pieces_;
  bool transposed_ = false;
};

}  // namespace

std::unique_ptr<PanelWeight> pack(ThreadPool& pool, std::span<const WeightSource> parts, WeightFormat format) {
  TS_CHECK(!parts.empty(), "a weight needs at least one part");
  auto weight = std::make_unique<PanelWeight>();
  weight->format = format;
  for (const WeightSource& part : parts) {
    const int64_t in = part.view.shape[part.transposed ? 0 : 1];
    TS_CHECK(weight->in_features == 0 || weight->in_features == in, "parts of one weight differ in width");
    weight->in_features = in;
    weight->out_features += part.view.shape[part.transposed ? 1 : 0];
  }
  weight->panels = (weight->out_features + kPanelWidth - 1) / kPanelWidth;
  weight->groups = (weight->in_features + kGroup - 1) / kGroup;
  weight->data = AlignedBuffer(static_cast<size_t>(weight->panels * weight->groups * weight_group_bytes(format)));
  weight->size_bytes = weight->data.size();
  const Packer packer(parts, *weight);
  pool.parallel_for(weight->panels, 1, [&](int64_t begin, int64_t end, int) { packer.run(begin, end); });
  return weight;
}

}  // namespace tinyserve::ops::linear
