#pragma once
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "kv/kv_storage.h"
#include "model/model.h"
#include "select/policies.h"

namespace tinyserve::cli {

/// Feeds random tokens to a model, step by step, for sequences of equal length that each own a run of pages: what
/// remains of an engine when only the model's time is wanted. All sequences are empty at the start.
class StepDriver {
 public:
  /// Room for `max_seqs` sequences of `max_context` tokens; steps of up to `max_step_tokens`. Calls model.reserve().
  /// Decoded tokens attend as `selection` says; `maps` for policies with codes.
  StepDriver(Model& model, ops::Ops& ops, int32_t max_seqs, int32_t max_context, int32_t max_step_tokens,
             const SelectionConfig& selection = {}, const SelectionMaps* maps = nullptr);

  /// Appends `count` tokens to sequence `seq`, which has `context` tokens, in steps of up to max_step_tokens; the last
  /// step computes logits.
  void prefill(int32_t seq, int32_t context, int32_t count);
  /// Appends one token to each of the first `num_seqs` sequences, which have `context` tokens each.
  void decode(int32_t num_seqs, int32_t context);
  /// What decoded tokens read since the last call.
  SelectionAccount take_account() { return std::exchange(account_, {}); }
  /// Fills all pages of all sequences with copies of the K/V of one prefill of `prompt` tokens. Time does not depend on
  /// the values, so what is measured afterwards is what a real context of that length would have cost.
  void fill_by_copy(int32_t prompt);

 private:
  static constexpr int32_t kPageSize = 16;

  void run(int32_t num_seqs, int32_t first_seq, int32_t context, int32_t query_len, bool logits, bool decodes = false);

  Model& model_;
  ops::Ops& ops_;
  int32_t pages_per_seq_, max_seqs_, max_step_tokens_;
  KvStorage storage_;
  SelectionConfig selection_;
  std::unique_ptr<Selector> selector_;  // null: dense
  std::vector<SequenceSelection> selections_;
  std::vector<Audit> audits_;  // of one step: what audits cost is part of it
  SelectionAccount account_;
  std::mt19937 random_{1};
  std::vector<int32_t> page_table_;  // [max_seqs, pages_per_seq]
  std::vector<int32_t> token_ids_, positions_, cu_query_lens_, kv_lens_, logit_rows_;
  std::vector<int64_t> slots_;
  std::unique_ptr<ops::Memory> logits_;  // [max_seqs, vocab] F32, the backend's
  std::vector<float> host_logits_;        // the same here, when the backend's memory is elsewhere
};

}  // namespace tinyserve::cli
