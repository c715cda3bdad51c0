#pragma once
#include <cstdint>
#include <span>

#include "eval/eval_text.h"
#include "eval/sequence_runner.h"

namespace tinyserve::eval {

/// Mean of -log p over scored tokens, natural logarithm.
struct Loss {
  int64_t tokens = 0;
  double mean = 0;
  double standard_error = 0;  ///< of the mean, as if tokens were independent; 0 for fewer than two
};

Loss mean_loss(std::span<const float> losses);
Loss mean_loss(std::span<const Prediction> predictions);

/// Chunks of `context` tokens that the text has for perplexity().
int64_t perplexity_chunks(const EvalText& text, int32_t context);

/// Loss over the first `chunks` non-overlapping chunks of `context` tokens, each on its own. As llama.cpp's perplexity
/// tool does it: the text begins with the tokenizer's BOS, if it has one, which also takes the place of each chunk's first token;
/// scored are the predictions at positions [context / 2, context - 1) of each chunk. exp(mean) is the perplexity.
/// Throws InputError when the text is too short.
Loss perplexity(SequenceRunner& runner, const EvalText& text, int32_t context, int64_t chunks);

}  // namespace tinyserve::eval
