#include "eval/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace tinyserve::eval {

Loss mean_loss(std::span<const float> losses) {
  double sum = 0, squares = 0;
  for (const float x : losses) sum += x;
  const auto n = static_cast<double>(losses.size());
  Loss loss{.tokens = static_cast<int64_t>(losses.size()), .mean = n > 0 ? sum / n : 0};
  for (const float x : losses) squares += (x - loss.mean) * (x - loss.mean);
  if (n > 1) loss.standard_error = std::sqrt(squares / (n - 1) / n);
  return loss;
}

Loss mean_loss(std::span<const Prediction> predictions) {
  std::vector<float> losses;
  for (const Prediction& p : predictions) losses.push_back(p.loss);
  return mean_loss(losses);
}

int64_t perplexity_chunks(const EvalText& text, int32_t context) {
  return (static_cast<int64_t>(text.tokens.size()) + (text.bos ? 1 : 0)) / context;
}

Loss perplexity(SequenceRunner& runner, const EvalText& text, int32_t context, int64_t chunks) {
  const int64_t there = perplexity_chunks(text, context);
  if (there < std::max<int64_t>(chunks, 1))
    throw InputError(fmt::format("the text has {} tokens: too few for {} chunk(s) of {}", text.tokens.size(), std::max<int64_t>(chunks, 1), context));
  std::vector<Prediction> all;
  std::vector<int32_t> tokens(static_cast<size_t>(context));
  const int64_t shift = text.bos ? 1 : 0;
  for (int64_t c = 0; c < chunks; ++c) {
    for (int32_t i = 0; i < context; ++i) {
      const int64_t at = c * context + i - shift;
      tokens[static_cast<size_t>(i)] = i == 0 && text.bos ? *text.bos : text.tokens[static_cast<size_t>(at)];
    }
    runner.prefill(tokens, 0, context / 2);
    const std::vector<Prediction> scored = runner.prefill_and_score(tokens, context / 2, context - 1);
    all.insert(all.end(), scored.begin(), scored.end());
  }
  return mean_loss(all);
}

}  // namespace tinyserve::eval
