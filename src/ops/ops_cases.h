#pragma once
// The one list of cases that every backend runs (ops_test.cc). A case builds its inputs from fixed numbers, runs one
// operation and returns what it wrote; ref says what is right, the tolerance how far others may be from it and why.

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace tinyserve::ops {

/// Uniform in (-1, 1), a function of its arguments alone.
float uniform(uint64_t stream, uint64_t index);

/// A vector in the backend's memory.
template <class T>
class OnBackend {
 public:
  OnBackend(Ops& ops, const std::vector<T>& values)
      : ops_(ops), size_(values.size()), memory_(ops.allocate(std::max<size_t>(1, size_) * sizeof(T))) {
    if (size_ > 0) ops.upload(memory_->data, values.data(), size_ * sizeof(T));
  }
  T* get() { return memory_->as<T>(); }
  std::byte* bytes() { return memory_->data; }
  std::vector<T> read() {
    std::vector<T> values(size_);
    if (size_ > 0) ops_.download(values.data(), memory_->data, size_ * sizeof(T));
    return values;
  }

 private:
  Ops& ops_;
  size_t size_;
  std::unique_ptr<Memory> memory_;
};

/// A backend may differ from ref by bounds[i] in element i.
struct OpCase {
  std::string name;
  std::function<std::vector<float>(Ops&)> run;
  std::function<std::vector<float>(const std::vector<float>& ref)> bounds;
};

std::vector<OpCase> op_cases();

/// Attention over sequences whose queries, keys and values are functions of (sequence id, position) alone, so that the
/// same rows can be asked for in any batch, chunk or page layout. Everything no query may see is NaN: unused slots of
/// the last page, unused pages, pages before the window.
struct AttentionProblem {
  struct Seq {
    int32_t id = 0;
    int32_t kv_len = 0;
    int32_t query_len = 1;
  };
  std::string name;
  int32_t heads = 4, kv_heads = 2, head_dim = 64;
  DType dtype = DType::kBF16;
  int32_t window = 0;
  float softcap = 0;
  float spread = 2;  ///< standard deviation of the scores is about spread^2 / 3
  std::vector<Seq> seqs;
  uint64_t page_seed = 1;  ///< how pages are scattered

  float scale() const;
  int64_t num_tokens() const;
  /// [num_tokens, heads * head_dim]; checks that nothing outside the rows was written.
  std::vector<float> run(Ops& ops) const;
  /// How far a backend that rounds q and the probabilities to BF16 (and otherwise computes in F32) may be from ref.
  std::vector<float> bounds(const std::vector<float>& ref) const;
};

std::vector<AttentionProblem> attention_problems();

/// Sparse attention over one sequence whose codes were written by the backend itself. Keys have the covariance that the map
/// says, a few are near the queries, and pages lie scattered.
struct SelectionProblem {
  std::string name;
  int32_t heads = 6, kv_heads = 2, head_dim = 64;
  DType dtype = DType::kBF16;
  int32_t length = 1000;
  std::vector<int32_t> positions{999};  ///< of the queries, ascending; equal ones have equal queries
  int32_t exact = 32, coded = 64, fine_divisor = 4, sinks = 1, recent = 1;
  bool value_codes = true;
  float spread = 1.5f;  ///< of the queries: how peaked attention is
  uint64_t page_seed = 1;
  float top_p = 0;
  uint64_t audit = 0;  ///< not 0: each row audits, with bits of its own
  /// The first 16 channels of values, which share a scale, are 1 in the ends (first page, last full and unfinished
  /// page), else 0.
  bool marked_ends = false;

  struct Result {
    std::vector<float> rows;   ///< [positions, heads * head_dim]
    std::vector<float> dense;  ///< the same by attention()
    std::vector<SparseStats> stats;
    std::vector<uint8_t> codes;  ///< of the sequence's full pages in order: coarse, fine, mean, values
  };
  Result run(Ops& ops) const;
};

std::vector<SelectionProblem> selection_problems();

/// Limits under which every case fits.
Limits case_limits();

}  // namespace tinyserve::ops
