#include "select/choosing_selector.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace tinyserve {

void ChoosingSelector::View::read(const std::byte* side, int32_t position, float* to) const {
  const ops::KvLayer& c = args.cache;
  const int64_t at = ((int64_t{table[position / c.page_size]} * c.kv_heads + head) * c.page_size + position % c.page_size) * c.head_dim;
  for (int32_t i = 0; i < c.head_dim; ++i)
    to[i] = c.dtype == DType::kF32 ? reinterpret_cast<const float*>(side)[at + i] : to_float(reinterpret_cast<const BFloat16*>(side)[at + i]);
}

void ChoosingSelector::View::logits(const float* q, std::vector<float>& to) const {
  std::vector<float> k(static_cast<size_t>(head_dim()));
  to.resize(static_cast<size_t>(tokens()));
  for (int32_t t = 0; t < tokens(); ++t) {
    key(t, k.data());
    to[static_cast<size_t>(t)] = args.scale * std::inner_product(k.begin(), k.end(), q, 0.0f);
  }
}

void raise_to_softmax(const std::vector<float>& x, std::vector<float>& scores) {
  const float most = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const float v : x) sum += std::exp(v - most);
  for (size_t i = 0; i < x.size(); ++i) scores[i] = std::max(scores[i], static_cast<float>(std::exp(x[i] - most) / sum));
}

void ChoosingSelector::attend(int32_t layer, const ops::AttentionArgs& a, const ops::BatchLayout& batch, std::span<const ops::SparseRow> rows) {
  std::vector<float> scores;
  log_masses_.clear();
  for (const ops::SparseRow& row : rows)
    for (int32_t h = 0; h < a.cache.kv_heads; ++h) {
      const View view{layer, h, a, row, batch.page_table + int64_t{row.seq} * batch.page_table_stride};
      scores.assign(static_cast<size_t>(view.tokens()), 0.0f);
      const double read = score(view, scores);
      choose(view, scores);
      answer(view);
      account(row, {.reads = 1,
                                                   .bytes = read + kv_bytes(a.cache, static_cast<int64_t>(kept_.size())),
                                                   .dense_bytes = kv_bytes(a.cache, view.tokens()),
                                                   .exact_share = 1});
    }
}

void ChoosingSelector::choose(const View& view, std::vector<float>& scores) {
  const int32_t n = view.tokens(), page = view.args.cache.page_size, unit = pages_ ? page : 1, units = (n + unit - 1) / unit;
  for (int32_t t = 0; t < n; ++t)  // the ends are always read
    if (t < config_.sinks * page || t >= n / page * page - config_.recent * page) scores[static_cast<size_t>(t)] = std::numeric_limits<float>::infinity();
  std::vector<float> best(static_cast<size_t>(units), -1);
  for (int32_t t = 0; t < n; ++t) best[static_cast<size_t>(t / unit)] = std::max(best[static_cast<size_t>(t / unit)], scores[static_cast<size_t>(t)]);
  std::vector<int32_t> order(static_cast<size_t>(units));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t x, int32_t y) { return best[static_cast<size_t>(x)] > best[static_cast<size_t>(y)]; });
  kept_.clear();
  const int32_t wanted = budget(view) + (config_.sinks + config_.recent) * page + n % page;
  for (const int32_t u : order) {
    if (static_cast<int32_t>(kept_.size()) + unit > wanted && !std::isinf(best[static_cast<size_t>(u)])) break;
    for (int32_t t = u * unit; t < std::min(n, (u + 1) * unit); ++t) kept_.push_back(t);
  }
}

void ChoosingSelector::answer(const View& view) {
  const int32_t d = view.head_dim();
  std::vector<float> row(static_cast<size_t>(d)), logits(kept_.size());
  std::vector<double> sum(static_cast<size_t>(d));
  shares_.assign(static_cast<size_t>(view.tokens()), 0.0f);
  for (int32_t g = 0; g < view.group(); ++g) {
    for (size_t i = 0; i < kept_.size(); ++i) {
      view.key(kept_[i], row.data());
      logits[i] = view.args.scale * std::inner_product(row.begin(), row.end(), view.query(g), 0.0f);
    }
    const float most = *std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (const float x : logits) total += std::exp(x - most);
    log_masses_.push_back(most + std::log(total));
    std::fill(sum.begin(), sum.end(), 0.0);
    for (size_t i = 0; i < kept_.size(); ++i) {
      const double share = std::exp(logits[i] - most) / total;
      shares_[static_cast<size_t>(kept_[i])] += static_cast<float>(share / view.group());
      view.read(view.args.cache.v, kept_[i], row.data());
      for (int32_t c = 0; c < d; ++c) sum[static_cast<size_t>(c)] += share * row[static_cast<size_t>(c)];
    }
    float* out = view.args.out + view.row.row * view.args.out_stride + int64_t{view.head * view.group() + g} * d;
    for (int32_t c = 0; c < d; ++c) out[c] = static_cast<float>(sum[static_cast<size_t>(c)]);
  }
  attended(view, shares_);
}

void PromptWindow::appended(const AppendedRows& a, int32_t num_heads, int32_t head_dim) {
  num_heads_ = num_heads, head_dim_ = head_dim;
  if (a.rows < 2) return;  // an answer's token
  if (layers_.size() <= static_cast<size_t>(a.layer)) layers_.resize(static_cast<size_t>(a.layer) + 1);
  std::vector<float>& to = layers_[static_cast<size_t>(a.layer)];
  const int64_t width = int64_t{num_heads} * head_dim;
  for (int64_t r = std::max<int64_t>(0, a.rows - kRows); r < a.rows; ++r) to.insert(to.end(), a.qkv + r * a.qkv_stride, a.qkv + r * a.qkv_stride + width);
  const auto most = static_cast<size_t>(kRows * width);
  if (to.size() > most) to.erase(to.begin(), to.end() - static_cast<int64_t>(most));
}

int32_t PromptWindow::rows(int32_t layer) const {
  if (static_cast<size_t>(layer) >= layers_.size()) return 0;
  return static_cast<int32_t>(layers_[static_cast<size_t>(layer)].size() / static_cast<size_t>(num_heads_ * head_dim_));
}

const float* PromptWindow::query(int32_t layer, int32_t row, int32_t head) const {
  return layers_[static_cast<size_t>(layer)].data() + (int64_t{row} * num_heads_ + head) * head_dim_;
}

}  // namespace tinyserve
