#pragma once
// Checkpoint tensors to the packed layouts of linear_kernels.h.

#include <memory>
#include <span>

#include "base/aligned_buffer.h"
#include "ops/ops.h"

namespace tinyserve::ops::linear {

class OneDnnTile;

/// The only copy of a weight matrix: [panels][groups][weight_group_bytes(format)].
struct PanelWeight : PackedWeight {
  AlignedBuffer data;
  int64_t panels = 0;            ///< of 64 outputs, the last one padded
  int64_t groups = 0;            ///< of 32 inputs, the last one padded
  OneDnnTile* onednn = nullptr;  ///< what multiplies 64 rows at a time where batch invariance is not asked for, or null

  int64_t panel_bytes() const { return data.size() == 0 ? 0 : static_cast<int64_t>(data.size()) / panels; }
};

std::unique_ptr<PanelWeight> pack(ThreadPool& pool, std::span<const WeightSource> parts, WeightFormat format);

}  // namespace tinyserve::ops::linear
