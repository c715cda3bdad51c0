#pragma once
// From checkpoint tensors to what a forward pass uses: packed matrices, F32 vectors, tables read in place.

#include <memory>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "model/checkpoint.h"
#include "model/model.h"

namespace tinyserve {

/// F32 numbers in the backend's memory; none: data() is null.
class Vector {
 public:
  Vector() = default;
  Vector(ops::Ops& ops, std::span<const float> values);
  const float* data() const { return memory_ ? memory_->as<float>() : nullptr; }

 private:
  std::unique_ptr<ops::Memory> memory_;
};

/// y = W x + b.
struct Linear {
  std::unique_ptr<ops::PackedWeight> weight;  ///< [out, in]
  Vector bias;                                ///< [out], or none
};

/// RMS norm (no bias) or layer norm.
struct Norm {
  Vector weight;  ///< [width]
  Vector bias;    ///< [width], or none
};

/// A table whose rows are looked up: in the checkpoint on the host, in the backend's memory else.
struct Table {
  TensorView view;  ///< [rows, width], of the checkpoint's dtype, or its blocks where the backend's memory is the host's
  std::unique_ptr<ops::Memory> memory;
};

/// Several projections of one input, fused along their outputs.
struct FusedPart {
  std::string name;  ///< of the module: ".weight" and ".bias" are appended
  int64_t out_features = 0;
};

enum class Bias : bool { kNo, kYes };
enum class Layout : bool { kOutIn, kInOut };  ///< kInOut: GPT-2's Conv1D, stored [in, out]

/// Loads a model's tensors one by one. What was packed is released from resident memory at once, so that loading needs
/// little more than the packed weights.
class WeightLoader {
 public:
  WeightLoader(Checkpoint& checkpoint, ops::Ops& ops, const ModelOptions& options);

  bool has(const std::string& tensor) const { return checkpoint_.has(tensor); }
  /// The first of `prefixes` with which `tensor` is there ("model." or ""); the first when none is, so that the error
  /// for the missing tensor shows the usual name.
  std::string find_prefix(std::initializer_list<const char*> prefixes, const std::string& tensor) const;

  Linear linear(const std::string& name, int64_t out_features, int64_t in_features, Bias bias,
                Layout layout = Layout::kOutIn);
  Linear fused_linear(const std::vector<FusedPart>& parts, int64_t in_features, Bias bias);
  Norm norm(const std::string& name, int64_t width, Bias bias);
  /// RMS weights stored as the difference from 1 (Gemma).
  Norm norm_plus_one(const std::string& name, int64_t width);
  /// A norm that neither scales nor shifts.
  Norm unit_norm(int64_t width);
  Table table(const std::string& tensor, int64_t rows, int64_t width);
  /// lm_head.weight where the checkpoint has it (tied models may, too), else the embedding when `tied`.
  Linear lm_head(const std::string& embedding, int64_t vocab, int64_t width, bool tied);

  /// Tensors ending so are known not to take part in the computation (saved masks and the like).
  void ignore_suffix(std::string suffix) { ignored_suffixes_.push_back(std::move(suffix)); }
  /// Call last. Throws InputError when the checkpoint holds a tensor that nothing asked for: the configuration does not
  /// describe this model. Releases what is still resident.
  void finish();

  size_t packed_bytes() const { return packed_bytes_; }
  /// Of them, those that stayed in the file's blocks.
  size_t block_bytes() const { return block_bytes_; }
  int64_t num_parameters() const { return num_parameters_; }

 private:
  std::vector<float> read(const std::string& tensor, int64_t width);
  Vector vector(std::span<const float> values);
  /// One matrix of a fused product: where it is in the checkpoint.
  struct Matrix {
    std::string tensor;
    Shape shape;
    bool transposed = false;
  };
  Linear pack(const std::vector<Matrix>& matrices);
  void done(const std::string& tensor, const TensorView& view);

  Checkpoint& checkpoint_;
  ops::Ops& ops_;
  const ModelOptions& options_;
  std::vector<std::string> ignored_suffixes_ = {".rotary_emb.inv_freq", "rope_freqs.weight"};
  std::unordered_set<std::string> counted_;  // tensors that count as parameters and progress once
  size_t packed_bytes_ = 0;
  size_t block_bytes_ = 0;
  size_t done_bytes_ = 0;
  int64_t num_parameters_ = 0;
};

}  // namespace tinyserve
