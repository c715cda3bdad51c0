#pragma once
// A language model of any family: configuration, weights in a backend's layout, and one step of it.

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kv/kv_shape.h"
#include "ops/ops.h"
#include "select/selector.h"

namespace tinyserve {

struct Rope;

/// What a config.json says, in one vocabulary for all families. Counts are positive and consistent after loading.
struct ModelConfig {
  std::string family;        ///< "llama", "mistral", "qwen2", "qwen3", "gpt2", "opt", "gemma2", "gemma3"
  std::string architecture;  ///< as in config.json, e.g. "LlamaForCausalLM"
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t intermediate_size = 0;
  int32_t max_positions = 0;           ///< longest context the model was made for (after RoPE scaling)
  std::vector<int32_t> eos_token_ids;  ///< generation_config.json's before config.json's
  int32_t bos_token_id = -1;           ///< -1: none
  int64_t num_parameters = 0;          ///< as counted in the checkpoint
};

struct ModelOptions {
  DType dtype = DType::kBF16;  ///< of weights and KV: kBF16 or kF32
  bool int8_weights = false;   ///< quantise the matrices at load (embeddings for look-up stay as stored)
  /// Matrices and tables that are quantised in a GGUF file stay in its blocks, whatever dtype says (int8_weights before
  /// this, for matrices); else they become dtype.
  bool keep_blocks = true;
  /// Called while loading, after each tensor, with the bytes of the checkpoint done so far and all of them.
  std::function<void(size_t done_bytes, size_t total_bytes)> on_progress;
};

/// One step over a flattened batch.
struct Step {
  std::span<const int32_t> token_ids;   ///< [num_tokens]
  ops::BatchLayout layout;              ///< positions, pages, lengths
  std::span<const int32_t> logit_rows;  ///< tokens (indices into token_ids, ascending) whose logits are wanted
  /// Null, or the policy that takes over attention: of the rows that `selections` [num_seqs] name (empty: of none), in the layers
  /// of selectable_layers().
  Selector* selector = nullptr;
  std::span<const SequenceSelection> selections = {};
};

class Model {
 public:
  /// Loads a Hugging Face folder or a GGUF file. Throws InputError that names the file and the field or tensor at fault.
  static std::unique_ptr<Model> load(const std::filesystem::path& path, ops::Ops& ops, const ModelOptions& options);
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  virtual KvShape kv_shape() const = 0;
  /// Resident bytes of packed weights.
  virtual size_t weight_bytes() const = 0;
  /// Of them, those of matrices in the blocks of a GGUF file.
  virtual size_t block_bytes() const { return 0; }
  /// Sizes activations (and the backend's scratch) for steps of up to max_tokens rows, max_logit_rows logits,
  /// max_seqs sequences and max_context tokens each. Called once before the first step.
  virtual void reserve(int64_t max_tokens, int64_t max_logit_rows, int64_t max_seqs, int64_t max_context) = 0;
  /// Of each layer whether queries see all positions by plain softmax, so that a Selector may take it over. Empty: of none.
  virtual std::vector<bool> selectable_layers() const { return {}; }
  /// How keys and queries of these layers are turned by their position; null: they are not. Channel i pairs with
  /// i + inverse_frequencies.size().
  virtual const Rope* rope() const { return nullptr; }
  /// Runs the step, appending K/V to `cache` (one per layer); logits: [logit_rows.size(), vocab_size].
  virtual void forward(const Step& step, std::span<const ops::KvLayer> cache, float* logits) = 0;
};

}  // namespace tinyserve
