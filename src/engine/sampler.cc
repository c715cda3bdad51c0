#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/philox.h"

namespace tinyserve {

ChoiceHistory::ChoiceHistory(const SamplingParams& params, std::span<const int32_t> prompt,
                             std::span<const int32_t> eos, uint64_t seed, int32_t index)
    : params_(&params),
      seed_(seed),
      index_(index),
      penalised_(params.presence_penalty != 0 || params.frequency_penalty != 0 || params.repetition_penalty != 1) {
  if (params.min_tokens > 0) {
    ending_tokens_ = params.stop_token_ids;
    if (!params.ignore_eos) ending_tokens_.insert(ending_tokens_.end(), eos.begin(), eos.end());
  }
  if (params.repetition_penalty != 1) {
    prompt_tokens_.assign(prompt.begin(), prompt.end());
    std::sort(prompt_tokens_.begin(), prompt_tokens_.end());
    prompt_tokens_.erase(std::unique(prompt_tokens_.begin(), prompt_tokens_.end()), prompt_tokens_.end());
  }
}

void ChoiceHistory::add(int32_t token) {
  ++num_generated_;
  if (penalised_) ++counts_[token];
}

ChoiceHistory ChoiceHistory::fork(int32_t index) const {
  ChoiceHistory copy = *this;
  copy.index_ = index;
  return copy;
}

bool ChoiceHistory::edits_logits() const {
  return !params_->logit_bias.empty() || penalised_ || num_generated_ < params_->min_tokens;
}

void ChoiceHistory::edit(float* logits) const {
  if (num_generated_ < params_->min_tokens) {
    for (int32_t id : ending_tokens_) logits[id] = -std::numeric_limits<float>::infinity();
  }
  for (const auto& [id, bias] : params_->logit_bias) logits[id] += bias;
  if (!penalised_) return;
  const float r = params_->repetition_penalty;
  auto repeat = [&](int32_t id) { logits[id] = logits[id] > 0 ? logits[id] / r : logits[id] * r; };
  for (int32_t id : prompt_tokens_) repeat(id);
  for (const auto& [id, count] : counts_) {
    if (r != 1 && !std::binary_search(prompt_tokens_.begin(), prompt_tokens_.end(), id)) repeat(id);
    logits[id] -= params_->frequency_penalty * static_cast<float>(count) + params_->presence_penalty;
  }
}

Sampler::Sampler(int32_t vocab_size) : vocab_size_(vocab_size), edited_(vocab_size), weights_(vocab_size) {}

int32_t Sampler::pick(const float* logits, const SamplingParams& params, const ChoiceHistory& history) {
  if (history.edits_logits()) {
    std::copy_n(logits, vocab_size_, edited_.data());
    history.edit(edited_.data());
    logits = edited_.data();
  }
  const Candidate best = argmax(logits, vocab_size_);
  if (best.id < 0)
    throw BadLogits("the model's output is not a distribution (NaN or infinite logits); check its weights and --dtype");
  if (params.temperature == 0) return best.id;
  return draw(logits, best.value, params, uniform_draw(history.seed_, history.index_, history.num_generated_));
}

int32_t Sampler::draw(const float* logits, float max, const SamplingParams& params, double u) {
  if (params.top_k > 0 && params.top_k < vocab_size_) return draw_from_top(logits, max, params, u);
  weights_.assign(logits, max, params.temperature);
  if (params.min_p > 0) weights_.keep_from(params.min_p);
  weights_.keep_share(params.top_p);
  return weights_.at(u);
}

/// With top_k: the candidates are few and sorted, so what min_p and top_p leave is a beginning of them.
int32_t Sampler::draw_from_top(const float* logits, float max, const SamplingParams& params, double u) {
  select_top(logits, vocab_size_, params.top_k, candidates_);
  size_t count = 0;
  double total = 0;
  for (; count < candidates_.size(); ++count) {
    float& value = candidates_[count].value;
    value = std::exp((value - max) / params.temperature);
    if (value < params.min_p || value <= 0) break;
    total += value;
  }
  if (params.top_p < 1) {
    const double wanted = params.top_p * total;
    size_t kept = 0;
    for (total = 0; kept < count && total < wanted; ++kept) total += candidates_[kept].value;
    count = kept;
  }
  double left = u * total;
  for (size_t i = 0; i + 1 < count; ++i) {
    left -= candidates_[i].value;
    if (left < 0) return candidates_[i].id;
  }
  return candidates_[count > 0 ? count - 1 : 0].id;
}

TokenLogprob Sampler::logprob(const float* logits, int32_t token, int32_t k) {
  const Candidate best = argmax(logits, vocab_size_);
  if (best.id < 0)
    throw BadLogits("the model's output is not a distribution (NaN or infinite logits); check its weights and --dtype");
  const double norm = log_sum_exp(logits, vocab_size_, best.value);
  TokenLogprob result{token, static_cast<float>(logits[token] - norm), {}};
  select_top(logits, vocab_size_, k, candidates_);
  result.top.reserve(candidates_.size());
  for (const Candidate& c : candidates_) result.top.emplace_back(c.id, static_cast<float>(c.value - norm));
  return result;
}

}  // namespace tinyserve
