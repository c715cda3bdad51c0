#pragma once
// All maps of a model: fitted or loaded once, then the same for whoever's pages are coded with them.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "kv/kv_shape.h"
#include "ops/ops.h"
#include "select/head_map.h"

namespace tinyserve {

/// What a layer may read of what a sequence's selection says, as multiples of it.
struct LayerReads {
  float exact = 1, coded = 1;  ///< tokens (SparseRow)
  float fine = 1;  ///< tokens whose pages have their fine codes read (SelectionConfig::fine_divisor, its inverse)
  bool operator==(const LayerReads&) const = default;

  int32_t exact_of(int32_t tokens) const { return times(tokens, exact); }
  int32_t coded_of(int32_t tokens) const { return times(tokens, coded); }
  int32_t fine_divisor_of(int32_t divisor) const {
    return std::max(1, static_cast<int32_t>(std::lround(static_cast<float>(divisor) / fine)));
  }

 private:
  static int32_t times(int32_t tokens, float factor) {
    return static_cast<int32_t>(std::lround(static_cast<float>(tokens) * factor));
  }
};

struct SelectionMaps {
  std::vector<std::vector<HeadMap>> layers;  ///< [num_layers][kv_heads]; a layer without maps attends densely
  std::vector<LayerReads> reads;             ///< [num_layers]

  /// Of the layers that `selectable` names (Model::selectable_layers).
  static SelectionMaps fit(const KeyStatistics& statistics, const std::vector<bool>& selectable);
  /// Throws InputError, naming the file, when it is not a file of maps or not for such a model.
  static SelectionMaps load(const std::filesystem::path& file, const KvShape& shape, const std::vector<bool>& selectable);
  /// JSON, matrices in base64. Throws InputError when it cannot be written.
  void save(const std::filesystem::path& file) const;

  std::vector<bool> coded_layers() const;
  /// Changes with any number in it: part of what pages' bytes depend on.
  std::string digest() const;
};

/// Maps in a backend's memory.
class PlacedMaps {
 public:
  PlacedMaps(ops::Ops& ops, const SelectionMaps& maps);
  /// Null where there is none.
  const ops::SelectionMap* layer(int32_t layer) const;
  const LayerReads& reads(int32_t layer) const { return reads_[static_cast<size_t>(layer)]; }

 private:
  template <class T>
  const T* place(ops::Ops& ops, const std::vector<T>& values);

  std::vector<std::unique_ptr<ops::Memory>> memory_;
  std::vector<ops::SelectionMap> layers_;
  std::vector<LayerReads> reads_;
};

}  // namespace tinyserve
