#pragma once
// How a block of a panel is cut into register tiles; shared by the instruction sets.

#include <algorithm>

#include "ops/cpu/linear_kernels.h"

namespace tinyserve::ops::linear {

/// One tile's way through a block.
struct Pass {
  const std::byte* w;  ///< the block's first group
  int64_t groups;
  const std::byte* x;  ///< the tile's first row at that group
  int64_t x_row_bytes;
  float* acc;  ///< the tile's first row and output
  bool first;
  const std::byte*
      prefetch;          ///< where this pass' share of what comes next begins: of each 256 bytes the first kLines lines
  bool prefetch_scales;  ///< the share is the first, to which whatever lies between the 256 bytes belongs
};

template <int kLines>
inline __attribute__((always_inline)) void prefetch_step(const std::byte* p) {
  for (int i = 0; i < kLines; ++i) __builtin_prefetch(p + 64 * i, 0, 2);
}

/// A Tile has kRows (the most rows that its registers hold), vectors(rows), kLanes, and
/// run<rows, vectors, prefetch lines>(pass, first column).
template <class Tile, int R>
void run_tile(const BlockArgs& a, int64_t row, int rows, int passes, int& pass) {
  if constexpr (R > 1) {
    if (rows < R) return run_tile<Tile, R - 1>(a, row, rows, passes, pass);
  }
  constexpr int kV = Tile::vectors(R);
  for (int column = 0; column < kPanelWidth; column += kV * Tile::kLanes, ++pass) {
    Pass p{a.w,     a.groups, a.x + row * a.x_row_bytes, a.x_row_bytes, a.acc + row * kPanelWidth + column,
           a.first, nullptr};
    // The passes over a block share the fetching of the next one, four lines each 256 bytes, to spread it evenly.
    const int lines = !a.prefetch || pass >= 4 ? 0 : passes == 1 ? 4 : passes < 4 ? 2 : 1;
    if (lines == 0 || pass * lines >= 4) {
      Tile::template run<R, kV, 0>(p, column);
      continue;
    }
    p.prefetch = a.prefetch + 64 * lines * pass;
    p.prefetch_scales = pass == 0;
    if (lines == 4)
      Tile::template run<R, kV, 4>(p, column);
    else if (lines == 2)
      Tile::template run<R, kV, 2>(p, column);
    else
      Tile::template run<R, kV, 1>(p, column);
  }
}

/// Row groups as even as they come, so that no pass is left with one row.
template <class Tile>
void run_block(const BlockArgs& a) {
  const int64_t tiles = (a.rows + Tile::kRows - 1) / Tile::kRows;
  const int most = static_cast<int>((a.rows + tiles - 1) / tiles);
  const int passes = static_cast<int>(std::min<int64_t>(4, tiles * kPanelWidth / (Tile::vectors(most) * Tile::kLanes)));
  int pass = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t begin = a.rows * t / tiles, end = a.rows * (t + 1) / tiles;
    run_tile<Tile, Tile::kRows>(a, begin, static_cast<int>(end - begin), passes, pass);
  }
}

}  // namespace tinyserve::ops::linear
