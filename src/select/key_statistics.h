#pragma once
// What the keys and queries of a model are like, gathered while it reads text: all that a map (head_map.h) is made of.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tinyserve {

/// Of one KV head. Sums are over tokens (keys) or tokens and the query heads that read it (queries).
struct HeadStatistics {
  int64_t keys = 0, queries = 0;
  std::vector<double> shift;        ///< [D], taken off the keys before they were summed: near their mean
  std::vector<double> key_sum;      ///< [D]
  std::vector<double> key_square;   ///< [D, D], upper triangle
  std::vector<double> query_square; ///< [D, D], upper triangle, nothing taken off
  std::vector<float> sample;        ///< [up to kSample, D], keys as they are, evenly over the text
  int64_t sample_stride = 1;

  static constexpr int64_t kSample = 1024;
};

class KeyStatistics {
 public:
  KeyStatistics(int32_t num_layers, int32_t num_heads, int32_t kv_heads, int32_t head_dim);

  /// Rows of a layer as append_kv leaves them (ops.h): rotated q and k, then v.
  void add(int32_t layer, const float* qkv, int64_t qkv_stride, int64_t rows);

  int32_t num_layers() const { return num_layers_; }
  int32_t kv_heads() const { return kv_heads_; }
  int32_t head_dim() const { return head_dim_; }
  const HeadStatistics& head(int32_t layer, int32_t kv_head) const { return heads_[size_t(layer) * kv_heads_ + kv_head]; }

 private:
  void add_keys(HeadStatistics& to, const float* k, int64_t stride, int64_t rows);

  int32_t num_layers_, num_heads_, kv_heads_, head_dim_;
  std::vector<HeadStatistics> heads_;
  std::vector<float> centred_, square_;  // scratch
};

}  // namespace tinyserve
