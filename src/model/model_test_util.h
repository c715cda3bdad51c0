#pragma once
// For tests: a model with a paged cache of its own, driven by lists of chunks.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/thread_pool.h"
#include "model/model.h"
#include "model/safetensors.h"

namespace tinyserve {

/// The repository: where this program was built, or, on a machine that has only a copy, the working folder.
inline std::filesystem::path repository() {
  const std::filesystem::path built = TINYSERVE_SOURCE_DIR;
  return std::filesystem::exists(built) ? built : std::filesystem::current_path();
}
inline std::filesystem::path golden_folder() { return repository() / "tests/golden/models"; }
inline std::filesystem::path bundled_folder() { return repository() / "models/tiny-16m-32k"; }

/// The next tokens of one sequence in a step.
struct Chunk {
  int32_t seq = 0;
  int32_t start = 0;  ///< position of the first token
  std::vector<int32_t> tokens;
  std::vector<int32_t> wanted;  ///< indices into tokens whose logits are wanted
};

class TestModel {
 public:
  static constexpr int32_t kPageSize = 16;

  TestModel(const std::filesystem::path& folder, std::string_view backend, const ModelOptions& options,
            int32_t max_seqs = 4, int32_t max_context = 128)
      : pool_(2),
        ops_(ops::make_ops(backend, pool_)),
        model_(Model::load(folder, *ops_, options)),
        max_seqs_(max_seqs) {
    pages_per_seq_ = (max_context + kPageSize - 1) / kPageSize;
    model_->reserve(int64_t{max_seqs} * max_context, int64_t{max_seqs} * max_context, max_seqs, max_context);
    const KvShape shape = model_->kv_shape();
    const int32_t num_pages = max_seqs * pages_per_seq_;
    for (int32_t l = 0; l < shape.num_layers; ++l) {
      ops::KvLayer layer{.dtype = shape.dtype,
                         .num_pages = num_pages,
                         .kv_heads = shape.kv_heads,
                         .page_size = kPageSize,
                         .head_dim = shape.head_dim};
      const size_t bytes = static_cast<size_t>(layer.page_elements()) * num_pages * dtype_bytes(shape.dtype);
      // What no sequence wrote must not matter: NaN in both dtypes.
      const std::vector<std::byte> nan(bytes, std::byte{0xff});
      for (std::byte** side : {&layer.k, &layer.v}) {
        *side = memory_.emplace_back(ops_->allocate(bytes))->data;
        ops_->upload(*side, nan.data(), bytes);
      }
      layers_.push_back(layer);
    }
    logits_ = ops_->allocate(size_t{4} * max_seqs * max_context * model_->config().vocab_size);
    physical_.resize(static_cast<size_t>(num_pages));
    std::iota(physical_.begin(), physical_.end(), 0);
    std::shuffle(physical_.begin(), physical_.end(), std::mt19937(5));
  }

  Model& model() { return *model_; }
  std::function<void(bool begins)> around_forward;  ///< called just before and after it

  /// Runs one step; one row of logits per wanted token, chunk by chunk.
  std::vector<std::vector<float>> step(const std::vector<Chunk>& chunks) {
    std::vector<int32_t> ids, positions, wanted, cu{0}, kv_lens, pages;
    std::vector<int64_t> slots;
    for (const Chunk& chunk : chunks) {
      const int32_t* table = physical_.data() + chunk.seq * pages_per_seq_;
      for (size_t i = 0; i < chunk.tokens.size(); ++i) {
        const int32_t position = chunk.start + static_cast<int32_t>(i);
        ids.push_back(chunk.tokens[i]);
        positions.push_back(position);
        slots.push_back(int64_t{table[position / kPageSize]} * kPageSize + position % kPageSize);
      }
      for (const int32_t w : chunk.wanted) wanted.push_back(cu.back() + w);
      cu.push_back(static_cast<int32_t>(ids.size()));
      kv_lens.push_back(chunk.start + static_cast<int32_t>(chunk.tokens.size()));
      pages.insert(pages.end(), table, table + pages_per_seq_);
    }
    Step step{.token_ids = ids, .logit_rows = wanted};
    step.layout = {.num_seqs = static_cast<int32_t>(chunks.size()),
                   .num_tokens = static_cast<int32_t>(ids.size()),
                   .cu_query_lens = cu.data(),
                   .kv_lens = kv_lens.data(),
                   .page_table = pages.data(),
                   .page_table_stride = pages_per_seq_,
                   .positions = positions.data(),
                   .slots = slots.data()};
    const auto vocab = static_cast<size_t>(model_->config().vocab_size);
    std::vector<float> logits(vocab * wanted.size());
    if (around_forward) around_forward(true);
    model_->forward(step, layers_, logits_->as<float>());
    if (around_forward) around_forward(false);
    if (!logits.empty()) ops_->download(logits.data(), logits_->data, logits.size() * sizeof(float));
    std::vector<std::vector<float>> rows;
    for (size_t r = 0; r < wanted.size(); ++r)
      rows.emplace_back(logits.begin() + r * vocab, logits.begin() + (r + 1) * vocab);
    return rows;
  }

 private:
  ThreadPool pool_;
  std::unique_ptr<ops::Ops> ops_;
  std::unique_ptr<Model> model_;
  int32_t max_seqs_, pages_per_seq_ = 0;
  std::vector<std::unique_ptr<ops::Memory>> memory_;
  std::unique_ptr<ops::Memory> logits_;
  std::vector<ops::KvLayer> layers_;
  std::vector<int32_t> physical_;
};

/// A folder of its own under the system's temporary folder, gone at the end.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "tinyserve-model-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& file, std::string_view content) const {
    std::ofstream(path_ / file, std::ios::binary) << content;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace tinyserve
