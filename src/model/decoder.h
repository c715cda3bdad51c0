#pragma once
// What the forward passes of all families stand on: activations, self-attention over the paged cache, and the checks of
// a step. A family derives from Decoder, holds its weights and writes forward() in these words.

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "model/checkpoint.h"
#include "model/config_reader.h"
#include "model/model.h"
#include "model/rope.h"
#include "model/row_split.h"
#include "model/step_rows.h"
#include "model/weights.h"

namespace tinyserve {

/// What a family's loader is given.
struct LoadContext {
  const std::filesystem::path& folder;
  const ConfigReader& config;  ///< config.json
  ModelConfig model;           ///< family, architecture, vocabulary and special tokens are filled in
  ops::Ops& ops;
  const ModelOptions& options;
};

/// Self-attention of one layer.
struct AttentionWeights {
  Linear qkv;             ///< [(num_heads + 2 num_kv_heads) * head_dim, hidden]: q, k and v in one product
  Linear out;             ///< [hidden, num_heads * head_dim]
  Vector q_norm, k_norm;  ///< [head_dim] RMS weights, or none
  float norm_eps = 0;
  float scale = 0;
  int32_t window = 0;  ///< tokens seen, itself included; 0: all
  float softcap = 0;   ///< 0: none
};

class Decoder : public Model {
 public:
  const ModelConfig& config() const override { return config_; }
  KvShape kv_shape() const override;
  size_t weight_bytes() const override { return weight_bytes_; }
  size_t block_bytes() const override { return block_bytes_; }
  std::vector<bool> selectable_layers() const override { return selectable_; }
  void reserve(int64_t max_tokens, int64_t max_logit_rows, int64_t max_seqs, int64_t max_context) override;

 protected:
  /// Row widths of the activations beside the hidden size and the attention's.
  struct Widths {
    int64_t up = 0;     ///< what up_ holds: gate and up together, fc1's output, or a projected embedding
    int64_t gated = 0;  ///< what gated_ holds; 0: unused
  };
  Decoder(const LoadContext& context, const ModelConfig& config, const Widths& widths);
  /// The end of a family's constructor: checks that nothing of the checkpoint was overlooked, keeps the counts and what each
  /// layer's `attention` (AttentionWeights) allows.
  template <class Layer>
  void finish_loading(WeightLoader& weights, const std::vector<Layer>& layers) {
    for (const Layer& l : layers) selectable_.push_back(l.attention.window == 0 && l.attention.softcap == 0);
    finish_loading(weights);
  }

  /// Checks the step and the cache against what was reserved and starts with all rows alive.
  void begin(const Step& step, std::span<const ops::KvLayer> cache);
  /// Rows alive.
  int64_t rows() const { return rows_.count(); }
  bool is_last(size_t layer) const { return layer + 1 == static_cast<size_t>(config_.num_layers); }

  /// y = W x + b, or y += with accumulate, over the live rows.
  void linear(const Linear& w, const float* x, float* y, bool accumulate = false);
  void rms_norm(const Norm& norm, float eps, const float* x, float* y);
  void layer_norm(const Norm& norm, float eps, const float* x, float* y);
  /// attended_ = attention(x), without the output projection. Appends to the layer's cache. In the last layer only the
  /// rows with logits stay alive, in x_ and attended_. `rope`: null for families that do not rotate.
  void self_attention(const AttentionWeights& w, const float* x, const ops::KvLayer& cache, bool last_layer,
                      const RopeTable* rope);

  ops::Ops& ops_;
  ModelConfig config_;
  Checkpoint checkpoint_;  ///< embeddings may be read from it in place
  DType dtype_;
  size_t weight_bytes_ = 0, block_bytes_ = 0;

  // Activations in the backend's memory, dense rows. What only attention uses shares memory with up_ and gated_: they
  // are never alive together. The pointers may change in self_attention.
  float* x_ = nullptr;         ///< [rows, hidden], the residual stream
  float* h_ = nullptr;         ///< [rows, hidden], the normalised input of a block, or its output before a norm
  float* attended_ = nullptr;  ///< [rows, num_heads * head_dim]
  float* up_ = nullptr;        ///< [rows, widths.up]
  float* gated_ = nullptr;     ///< [rows, widths.gated]

 private:
  int64_t qkv_width() const { return int64_t{config_.num_heads + 2 * config_.num_kv_heads} * config_.head_dim; }
  int64_t q_width() const { return int64_t{config_.num_heads} * config_.head_dim; }

  void finish_loading(WeightLoader& weights);
  void find_full_pages(const ops::BatchLayout& layout, int32_t page_size);
  void attend(const AttentionWeights& w, const ops::KvLayer& cache, const float* q);
  void gather_wanted(const float* from, int64_t width, float* to);

  Widths widths_;
  StepRows rows_;
  ops::BatchLayout layout_;  // of the live rows, in the backend's memory
  std::vector<bool> selectable_;  // [num_layers]
  Selector* selector_ = nullptr;  // of this step
  std::span<const SequenceSelection> selections_;
  int32_t layer_ = 0;  // the one that attends next
  RowSplit split_;     // of the live rows; empty without a selector
  std::vector<int32_t> full_pages_;
  std::unique_ptr<ops::Memory> activations_;
  float* qkv_ = nullptr;           // [max_tokens, (num_heads + 2 num_kv_heads) * head_dim]
  float* all_attended_ = nullptr;  // [max_tokens, num_heads * head_dim]
  float* gathered_ = nullptr;      // [max_logit_rows, (num_heads + 2 num_kv_heads) * head_dim]
  TensorView gather_table_;        // a view of activations, kept because making one allocates its shape
  int64_t max_tokens_ = 0, max_logit_rows_ = 0, max_seqs_ = 0, max_context_ = 0;
};

}  // namespace tinyserve
