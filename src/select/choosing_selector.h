#pragma once
// What policies for evaluation share: each says how good every token of one KV head's context is, the best are read exactly, the rest is
// dropped. Plain loops on the host's memory; one sequence, and a selector for each sequence anew.

#include <span>
#include <vector>

#include "select/policies.h"

namespace tinyserve {

class ChoosingSelector : public Selector {
 public:
  ChoosingSelector(const SelectionConfig& config, bool pages) : config_(config), pages_(pages) {}
  void appended(const AppendedRows&) override {}
  void attend(int32_t layer, const ops::AttentionArgs& args, const ops::BatchLayout& batch, std::span<const ops::SparseRow> rows) final;
  /// Of the last attend(): log-sum-exp of the logits that were read, [rows, query heads].
  std::span<const double> log_masses() const { return log_masses_; }

 protected:
  /// One query row and KV head.
  struct View {
    int32_t layer, head;
    const ops::AttentionArgs& args;
    const ops::SparseRow& row;
    const int32_t* table;
    int32_t tokens() const { return row.position + 1; }
    int32_t head_dim() const { return args.cache.head_dim; }
    int32_t group() const { return args.num_heads / args.cache.kv_heads; }
    const float* query(int32_t g) const { return args.q + row.row * args.q_stride + int64_t{head * group() + g} * head_dim(); }
    void read(const std::byte* side, int32_t position, float* to) const;
    void key(int32_t position, float* to) const { read(args.cache.k, position, to); }
    /// [tokens()], true logits of a query [head_dim].
    void logits(const float* q, std::vector<float>& to) const;
  };
  /// Fills scores [tokens()], larger is better, infinite must be read. Returns the bytes that were read for it.
  virtual double score(const View& view, std::vector<float>& scores) = 0;
  /// How many tokens are read.
  virtual int32_t budget(const View& view) const { return view.row.exact; }
  /// After the answer: what share of attention each token that was read got, mean over the group; 0 for the others.
  virtual void attended(const View&, std::span<const float> shares) { (void)shares; }

  const SelectionConfig config_;

 private:
  void choose(const View& view, std::vector<float>& scores);
  void answer(const View& view);

  const bool pages_;  // chosen whole, by the best token's score
  std::vector<int32_t> kept_;
  std::vector<float> shares_;
  std::vector<double> log_masses_;
};

/// scores[i] = max(scores[i], softmax(x)[i]).
void raise_to_softmax(const std::vector<float>& x, std::vector<float>& scores);

/// Queries of the last prompt tokens, for policies that choose by them: what a selector sees appended before its first answer.
class PromptWindow {
 public:
  static constexpr int32_t kRows = 64;
  void appended(const AppendedRows& rows, int32_t num_heads, int32_t head_dim);
  /// Rows there are for a layer; row r's query of a head.
  int32_t rows(int32_t layer) const;
  const float* query(int32_t layer, int32_t row, int32_t head) const;

 private:
  int32_t num_heads_ = 0, head_dim_ = 0;
  std::vector<std::vector<float>> layers_;
};

}  // namespace tinyserve
