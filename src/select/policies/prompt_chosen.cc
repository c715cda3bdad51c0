// Policies that choose once, when the prompt ends, by the attention of its last queries, and keep that choice: H2O (arXiv 2306.14048),
// which goes on counting and lets go of who is not attended to, SnapKV (2404.14469) and PyramidKV (2406.02069).

#include <algorithm>
#include <cmath>
#include <limits>

#include "select/choosing_selector.h"
#include "select/policies/makers.h"

namespace tinyserve {
namespace {

class PromptSelector : public ChoosingSelector {
 public:
  explicit PromptSelector(const PolicyContext& c) : ChoosingSelector(c.config, false), context_heads_(c.num_heads), head_dim_(c.head_dim) {}
  void appended(const AppendedRows& rows) override { window_.appended(rows, context_heads_, head_dim_); }

 protected:
  /// Attention that tokens got from the prompt's last queries and, in answers, later: [tokens], grown as the answer goes on.
  std::vector<float>& mass(const View& v) {
    const size_t index = static_cast<size_t>(v.layer) * static_cast<size_t>(v.args.cache.kv_heads) + static_cast<size_t>(v.head);
    if (mass_.size() <= index) mass_.resize(index + 1);
    std::vector<float>& m = mass_[index];
    if (m.empty()) observe(v, m);
    m.resize(static_cast<size_t>(v.tokens()), 0.0f);
    return m;
  }
  int32_t prompt() const { return prompt_; }

 private:
  void observe(const View& v, std::vector<float>& mass) {
    prompt_ = v.row.position;  // the first token after it asks first
    mass.assign(static_cast<size_t>(prompt_), 0.0f);
    std::vector<float> logits;
    const int32_t rows = window_.rows(v.layer);
    for (int32_t r = 0; r < rows; ++r)
      for (int32_t g = 0; g < v.group(); ++g) {
        v.logits(window_.query(v.layer, r, v.head * v.group() + g), logits);
        const int32_t sees = prompt_ - rows + r + 1;
        const float most = *std::max_element(logits.begin(), logits.begin() + sees);
        double total = 0;
        for (int32_t t = 0; t < sees; ++t) total += std::exp(logits[static_cast<size_t>(t)] - most);
        for (int32_t t = 0; t < sees; ++t) mass[static_cast<size_t>(t)] += static_cast<float>(std::exp(logits[static_cast<size_t>(t)] - most) / total);
      }
  }

  const int32_t context_heads_, head_dim_;
  PromptWindow window_;
  int32_t prompt_ = 0;
  std::vector<std::vector<float>> mass_;  // [layer * kv_heads + head][tokens]
};

/// Half of the budget to those who got most attention so far, half to the newest. Who was let go stays so.
class H2oSelector final : public PromptSelector {
 public:
  using PromptSelector::PromptSelector;

 private:
  double score(const View& v, std::vector<float>& scores) override {
    const std::vector<float>& m = mass(v);
    std::copy(m.begin(), m.end(), scores.begin());
    for (int32_t t = std::max(0, v.tokens() - v.row.exact / 2); t < v.tokens(); ++t) scores[static_cast<size_t>(t)] = std::numeric_limits<float>::infinity();
    return 0;
  }
  void attended(const View& v, std::span<const float> shares) override {
    std::vector<float>& m = mass(v);
    for (size_t t = 0; t < shares.size(); ++t) m[t] = shares[t] > 0 ? m[t] + shares[t] * static_cast<float>(v.group()) : 0;
  }
};

/// The best of the prompt by what its last queries saw, smoothed over neighbours; then all that is new.
class SnapKvSelector final : public PromptSelector {
 public:
  SnapKvSelector(const PolicyContext& c, bool pyramid) : PromptSelector(c), pyramid_(pyramid), num_layers_(c.num_layers) {}

 private:
  static constexpr int32_t kPool = 7;

  double score(const View& v, std::vector<float>& scores) override {
    const std::vector<float>& m = mass(v);
    const int32_t window = std::max(0, prompt() - PromptWindow::kRows);
    for (int32_t t = 0; t < v.tokens(); ++t) {
      if (t >= window) {
        scores[static_cast<size_t>(t)] = std::numeric_limits<float>::infinity();
        continue;
      }
      const int32_t from = std::max(0, t - kPool / 2), to = std::min(window, t + kPool / 2 + 1);
      scores[static_cast<size_t>(t)] = *std::max_element(m.begin() + from, m.begin() + to);
    }
    return 0;
  }
  /// PyramidKV gives the first layers most, falling in equal steps to a quarter of the mean.
  int32_t budget(const View& v) const override {
    const int32_t answered = v.tokens() - prompt();
    if (!pyramid_ || num_layers_ < 2) return v.row.exact + answered;
    const double least = v.row.exact / 4.0, step = 2 * (v.row.exact - least) / (num_layers_ - 1);
    return static_cast<int32_t>(2 * v.row.exact - least - step * v.layer) + answered;
  }

  const bool pyramid_;
  const int32_t num_layers_;
};

}  // namespace

std::unique_ptr<Selector> make_h2o(const PolicyContext& context) { return std::make_unique<H2oSelector>(context); }
std::unique_ptr<Selector> make_snapkv(const PolicyContext& context) { return std::make_unique<SnapKvSelector>(context, false); }
std::unique_ptr<Selector> make_pyramidkv(const PolicyContext& context) { return std::make_unique<SnapKvSelector>(context, true); }

}  // namespace tinyserve
