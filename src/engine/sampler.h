#pragma once
// From a row of logits to a token. The order of operations is vLLM's:
//   1. log-probabilities are taken from the raw logits: log_softmax before any of the following;
//   2. tokens that would end the answer before min_tokens are masked; logit_bias is added;
//   3. penalties: repetition (prompt and answer: x / r if x > 0, else x * r), frequency, presence (answer only);
//   4. temperature 0: the largest logit, lowest id on ties, and nothing else;
//   5. otherwise logits / temperature; min_p (of the largest probability); top_k; top_p of what is left (the fewest
//   best
//      tokens whose probabilities reach it); one draw.
// Exactly top_k tokens are kept: of equal logits the lower ids. The draw is Philox(seed, choice, position): it depends
// neither on the batch nor on preemption.

#include <cstdint>
#include <span>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "engine/request.h"
#include "engine/token_selection.h"

namespace tinyserve {

/// The model's logits cannot be sampled from. what() is for the client.
class BadLogits : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What the sampler must know about the answer so far. One per choice; copied when choices fork.
class ChoiceHistory {
 public:
  /// `params` outlives it. `eos`: tokens that end an answer.
  ChoiceHistory(const SamplingParams& params, std::span<const int32_t> prompt, std::span<const int32_t> eos,
                uint64_t seed, int32_t index);

  /// A token was picked.
  void add(int32_t token);
  int32_t num_generated() const { return num_generated_; }
  /// The same history, another stream.
  ChoiceHistory fork(int32_t index) const;

 private:
  friend class Sampler;
  bool edits_logits() const;
  void edit(float* logits) const;

  const SamplingParams* params_;
  uint64_t seed_;
  int32_t index_;
  int32_t num_generated_ = 0;
  bool penalised_;
  std::vector<int32_t> ending_tokens_;           // masked before min_tokens
  std::vector<int32_t> prompt_tokens_;           // distinct, for the repetition penalty
  std::unordered_map<int32_t, int32_t> counts_;  // of generated tokens, for the penalties
};

/// Scratch for rows of one vocabulary. One for all choices.
class Sampler {
 public:
  explicit Sampler(int32_t vocab_size);

  /// The next token. Throws BadLogits for NaN, or when no token is possible.
  int32_t pick(const float* logits, const SamplingParams& params, const ChoiceHistory& history);
  /// log_softmax(logits) of `token` and of the `k` best.
  TokenLogprob logprob(const float* logits, int32_t token, int32_t k);

 private:
  int32_t draw(const float* logits, float max, const SamplingParams& params, double u);
  int32_t draw_from_top(const float* logits, float max, const SamplingParams& params, double u);

  int32_t vocab_size_;
  std::vector<float> edited_;
  TokenWeights weights_;
  std::vector<Candidate> candidates_;
};

}  // namespace tinyserve
