#pragma once
// The engine's own state of requests and their choices. Everything here belongs to the engine's thread.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/text_stream.h"
#include "kv/page_hash.h"
#include "kv/page_table.h"
#include "select/budget_control.h"

namespace tinyserve {

struct RequestState;

/// One choice of a request: its tokens, and how far the KV cache has them. Preemption gives the pages up and sets
/// num_computed to 0; tokens, history and text stay, so the answer goes on as if nothing had happened.
struct Sequence {
  Sequence(RequestState& owner, int32_t choice, PagePool& pool, ChoiceHistory choice_history, TextStream stream)
      : request(&owner), index(choice), pages(pool), history(std::move(choice_history)), text(std::move(stream)) {}

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t remaining() const {
    return num_tokens() - num_computed;
  }  ///< tokens to compute before the next can be picked

  RequestState* request;
  int32_t index;
  uint64_t uid = 0;             ///< never used twice
  std::vector<int32_t> tokens;  ///< prompt, then answer
  int32_t num_computed = 0;     ///< tokens whose K/V are in the pages
  PageTable pages;
  std::vector<PageHash> hashes;  ///< of the full pages of `tokens`, computed when first wanted
  ChoiceHistory history;
  TextStream text;
  Audit audit;                ///< of its sparse reads
  BudgetControl budget;       ///< active with a wanted epsilon
  int32_t num_accounted = 0;  ///< positions below have been accounted; what a preempted one computes again counts once
  double last_token_time = 0;
  bool finished = false;
};

struct RequestState {
  uint64_t id = 0;
  uint64_t order = 0;  ///< of arrival: who came first is served first
  SamplingParams sampling;
  std::string cache_salt;
  PageHash prefix_root;                  ///< where the names of its pages begin: the salt's name
  std::shared_ptr<const StopSet> stops;  ///< null: no stop strings
  int32_t num_prompt = 0;
  int32_t max_tokens = 0;  ///< of an answer, resolved
  uint64_t seed = 0, audit_seed = 0;
  OutputSink sink;
  double arrival_time = 0;
  bool scheduled = false;                          ///< has left the queue
  bool any_output = false;                         ///< the first output has been sent
  int32_t cached_tokens = 0;                       ///< of the prompt, found in the prefix cache
  int32_t num_unfinished = 0;                      ///< choices
  int64_t num_generated = 0;                       ///< tokens, over all choices
  SelectionTerms terms;                            ///< how they attend
  SelectionAccount selection;                      ///< what they read
  std::vector<TokenLogprob> prompt_logprobs;       ///< so far, until they go out with the first output
  int32_t num_scored = 0;                          ///< prompt positions whose logits have been taken
  std::vector<std::unique_ptr<Sequence>> choices;  ///< [1] until the prompt is computed, then [n]

  /// Prompt positions whose logits are still to come (each predicts the token after it): [first, last).
  int32_t first_prompt_logit() const { return num_scored; }
  int32_t last_prompt_logit() const { return sampling.prompt_logprobs >= 0 ? num_prompt - 1 : 0; }
  bool wants_prompt_logits() const { return first_prompt_logit() < last_prompt_logit(); }
};

/// First come, first served; the choices of a request in their order.
inline bool earlier(const Sequence* a, const Sequence* b) {
  return a->request->order != b->request->order ? a->request->order < b->request->order : a->index < b->index;
}

}  // namespace tinyserve
