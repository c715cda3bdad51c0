#pragma once
// Bounds on what a configuration may ask for: far beyond any model, small enough that products of two fit in int64 and
// nothing absurd is allocated before the checkpoint's own shapes have been compared.

#include <cstdint>

namespace tinyserve {

constexpr int32_t kMaxVocab = 1 << 24;
constexpr int32_t kMaxWidth = 1 << 20;  ///< hidden size, intermediate size, heads * head_dim
constexpr int32_t kMaxLayers = 4096;
constexpr int32_t kMaxHeads = 1 << 14;
constexpr int32_t kMaxHeadDim = 1 << 12;
constexpr int32_t kMaxPositions = 1 << 27;

}  // namespace tinyserve
