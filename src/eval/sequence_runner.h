#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kv/kv_storage.h"
#include "model/model.h"

namespace tinyserve::eval {

/// What the model said at one position about the token that follows it.
struct Prediction {
  float loss = 0;        ///< -log of the probability it gave to the token that is there, natural logarithm
  bool correct = false;  ///< whether that token was its first choice (of equal ones the lowest id)
};

/// What a row of logits [vocab_size] says about `next`. A row with a NaN or an infinite maximum has a NaN for its loss.
Prediction predict(const float* logits, int32_t vocab_size, int32_t next);

/// Runs one known sequence through a model, in large steps or token by token, and scores its predictions. K/V of a
/// position stays until that position is run again, so one prefill serves many runs of what follows it.
class SequenceRunner {
 public:
  static constexpr int32_t kPageSize = 16;

  /// Room for sequences of `max_context` tokens. Calls model.reserve(), so there is one runner to a model. All outlive
  /// it. Throws InputError when max_context is more than the model was made for, or memory is short.
  /// Pages have codes as `codes` says, for selectors that need them.
  SequenceRunner(Model& model, ops::Ops& ops, ThreadPool& pool, int32_t max_context, const CodeShape& codes = {});

  /// From here on steps run under `selector` (null: dense), which outlives them: it sees what they append, and what
  /// decode_and_score() computes attends by it where `selection` says. A prompt is always computed densely.
  void select(Selector* selector, const SequenceSelection& selection = {});
  /// What selected positions read since select().
  const SelectionAccount& account() const { return account_; }

  /// Computes K/V of positions [begin, end) of `tokens`, those before begin being there. Throws InputError for a token
  /// that the model does not have (as all that follow).
  void prefill(std::span<const int32_t> tokens, int32_t begin, int32_t end);
  /// The same, with predictions: one for each of these positions; end < tokens.size(). Throws InputError when the model
  /// computes logits that are no numbers.
  std::vector<Prediction> prefill_and_score(std::span<const int32_t> tokens, int32_t begin, int32_t end);
  /// The same in steps of one token, as an answer is generated; whatever the model predicts, the next token is that of
  /// the sequence (teacher forcing).
  std::vector<Prediction> decode_and_score(std::span<const int32_t> tokens, int32_t begin, int32_t end);

  /// Called after each step with the number of tokens it had.
  std::function<void(int32_t tokens)> on_step;
  /// Called with the logits [vocab_size] of each position that is scored, in order.
  std::function<void(std::span<const float> logits)> on_logits;

 private:
  void run(std::span<const int32_t> tokens, int32_t begin, int32_t end, bool logits, bool decodes = false);
  /// Appends what the last step's logits, rows of [begin, end), say.
  void score(std::span<const int32_t> tokens, int32_t begin, int32_t end, std::vector<Prediction>& out);

  Model& model_;
  ops::Ops& ops_;
  ThreadPool& pool_;
  Selector* selector_ = nullptr;
  SequenceSelection selection_;
  SelectionAccount account_;
  int32_t max_context_, step_rows_;       // step_rows_: of a step that computes logits
  KvStorage storage_;
  std::vector<int32_t> page_table_, positions_, logit_rows_;
  std::vector<int64_t> slots_;
  std::unique_ptr<ops::Memory> logits_;   // [step_rows_, vocab_size] F32, the backend's
  std::vector<float> host_logits_;        // the same here, when the backend's memory is elsewhere
};

}  // namespace tinyserve::eval
