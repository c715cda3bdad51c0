#pragma once
// The map of one KV head from keys to codes (ops/selection_layout.h), as it is fitted, kept and loaded.

#include <vector>

#include "ops/selection_layout.h"
#include "select/key_statistics.h"

namespace tinyserve {

struct HeadMap {
  ops::HeadBits bits;
  std::vector<float> mean;                      ///< [D]
  std::vector<float> to_axes, from_axes;        ///< [D axes, D]
  std::vector<float> coarse_error, fine_error;  ///< [D axes]
  std::vector<float> variance;                  ///< [D axes], what an axis adds to the mean square of q.(k - mean), before scaling
};

/// Fits the axes to the statistics: keys are centred, multiplied by the square root of the queries' second moment, so that Euclidean
/// error is expected squared error of q.k, and turned to their principal axes there; bits go where they lower the error most
/// (water-filling, four axes at a time). Errors are those of the sampled keys. Needs more than one key and query.
HeadMap fit_head_map(const HeadStatistics& statistics, int32_t head_dim);

/// Shares of the bits for axes of falling variance [D]: those of least expected error that the layout can hold.
ops::HeadBits share_bits(const std::vector<double>& variance);

}  // namespace tinyserve
