#include "ops/ref/ref_selection.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ops/ref/ref_audit.h"
#include "ops/ref/ref_codes.h"
#include "ops/selection_audit.h"

namespace tinyserve::ops::ref {
namespace {

float load(const std::byte* p, DType dtype, int64_t i) {
  if (dtype == DType::kF32) return reinterpret_cast<const float*>(p)[i];
  return to_float(reinterpret_cast<const BFloat16*>(p)[i]);
}

// What becomes of a token of the middle.
enum class Read : uint8_t { kEstimated, kCoded, kExact, kNot };

constexpr int32_t kKeys = 1024;
int32_t key_of(float relative) {
  return static_cast<int32_t>(std::clamp(std::floor(32.0f * relative) + (kKeys - 1), 0.0f, kKeys - 1.0f));
}

double log_sum_exp(const std::vector<float>& x) {
  const float m = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const float v : x) sum += std::exp(double{v} - m);
  return m + std::log(sum);
}

// The best `count` of `keys`, of equal ones the first: all indices in order of falling key.
std::vector<int32_t> by_key(const std::vector<int32_t>& keys) {
  std::vector<int32_t> order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return keys[a] > keys[b]; });
  return order;
}

// One query row and KV head.
class Selection {
 public:
  Selection(const SparseAttentionArgs& a, const BatchLayout& batch, const SparseRow& row, int32_t head)
      : a_(a), row_(row), head_(head), d_(a.cache.head_dim), group_(a.num_heads / a.cache.kv_heads),
        table_(batch.page_table + int64_t{row.seq} * batch.page_table_stride) {
    const int32_t full = (row.position + 1) / kCodePage;
    begin_ = std::min(a.sinks, full);
    end_ = std::max(begin_, full - a.recent);
    tokens_ = (end_ - begin_) * kCodePage;
  }

  void run(SparseStats* stats) {
    logits_.assign(group_, std::vector<float>(tokens_));
    read_.assign(tokens_, Read::kEstimated);
    if (tokens_ > 0) {
      score();
      choose();
      find_means();
    }
    attend(stats);
  }

 private:
  int64_t block(int32_t page) const { return int64_t{table_[page]} * a_.cache.kv_heads + head_; }
  const float* query(int32_t g) const { return a_.q + row_.row * a_.q_stride + (head_ * group_ + g) * d_; }
  const HeadBits& bits() const { return a_.map.bits[head_]; }

  // Logits of the coarse grade for all, of the fine grade for the best pages.
  void score() {
    const int32_t coded = 4 * (bits().fine4 + bits().fine2);
    coefficients_.assign(group_, std::vector<int8_t>(d_));
    step_.resize(group_), coarse_shift_.resize(group_), fine_shift_.resize(group_);
    for (int32_t g = 0; g < group_; ++g) {
      std::vector<float> c(d_);
      double shift = 0, coarse = 0, fine = 0;
      for (int32_t i = 0; i < d_; ++i) shift += double{a_.map.mean[head_ * d_ + i]} * query(g)[i];
      for (int32_t x = 0; x < d_; ++x) {
        double sum = 0;
        for (int32_t i = 0; i < d_; ++i) sum += double{a_.map.from_axes[(int64_t{head_} * d_ + x) * d_ + i]} * query(g)[i];
        c[x] = static_cast<float>(sum * a_.scale);
        coarse += double{c[x]} * c[x] * a_.map.coarse_error[head_ * d_ + x];
        fine += double{c[x]} * c[x] * a_.map.fine_error[head_ * d_ + x];
      }
      float most = 0;
      for (int32_t x = 0; x < coded; ++x) most = std::max(most, std::abs(c[x]));
      const float inverse = most > 0 ? 127 / most : 0;
      for (int32_t x = 0; x < coded; ++x) coefficients_[g][x] = static_cast<int8_t>(std::nearbyint(c[x] * inverse));
      step_[g] = most / 127 * kLevelStep;
      coarse_shift_[g] = static_cast<float>(a_.scale * shift + coarse / 2);
      fine_shift_[g] = static_cast<float>(a_.scale * shift + fine / 2);
    }
    for (int32_t p = begin_; p < end_; ++p) score_page(p, false);
    find_keys();
    const int32_t reached = keys_[by_key(keys_)[(tokens_ + a_.fine_divisor - 1) / a_.fine_divisor - 1]];
    fine_.assign(end_ - begin_, false);
    for (int32_t p = 0; p < end_ - begin_; ++p) {
      if (*std::max_element(keys_.begin() + p * kCodePage, keys_.begin() + (p + 1) * kCodePage) < reached) continue;
      fine_[p] = true;
      ++fine_pages_;
      score_page(begin_ + p, true);
    }
    find_keys();
  }

  void score_page(int32_t page, bool fine) {
    std::vector<int8_t> levels(kCodePage * d_);
    read_key_codes(bits(), d_, a_.cache.codes.coarse + block(page) * coarse_bytes(d_),
                   fine ? a_.cache.codes.fine + block(page) * fine_bytes(d_) : nullptr, levels.data());
    for (int32_t g = 0; g < group_; ++g)
      for (int32_t t = 0; t < kCodePage; ++t) {
        int32_t sum = 0;
        for (int32_t x = 0; x < d_; ++x) sum += int32_t{coefficients_[g][x]} * levels[t * d_ + x];
        logits_[g][(page - begin_) * kCodePage + t] =
            static_cast<float>(sum) * step_[g] + (fine ? fine_shift_ : coarse_shift_)[g];
      }
  }

  void find_keys() {
    std::vector<float> best(tokens_, -INFINITY);
    levels_.resize(group_);
    for (int32_t g = 0; g < group_; ++g) {
      const float level = levels_[g] = static_cast<float>(log_sum_exp(logits_[g]));
      for (int32_t t = 0; t < tokens_; ++t) best[t] = std::max(best[t], logits_[g][t] - level);
    }
    keys_.resize(tokens_);
    for (int32_t t = 0; t < tokens_; ++t) keys_[t] = key_of(best[t]);
  }

  void choose() {
    std::vector<int32_t> candidates, keys;
    for (int32_t t = 0; t < tokens_; ++t)
      if (fine_[t / kCodePage]) candidates.push_back(t), keys.push_back(keys_[t]);
    const std::vector<int32_t> order = by_key(keys);
    int64_t exact = row_.exact;
    if (row_.top_p > 0) {
      const auto weight = [&](int32_t i) { return std::exp((keys[i] - (kKeys - 1)) / 32.0); };
      double left = mass_elsewhere();
      for (const int32_t i : order) left += weight(i);
      left *= row_.top_p;
      int64_t fewest = 0;
      for (; fewest < static_cast<int64_t>(order.size()) && left > 0; ++fewest) left -= weight(order[fewest]);
      exact = std::min(exact, fewest);
    }
    for (size_t i = 0; i < order.size(); ++i) {
      const auto rank = static_cast<int64_t>(i);
      if (rank < exact)
        read_[candidates[order[i]]] = Read::kExact;
      else if (rank < exact + row_.coded)
        read_[candidates[order[i]]] = Read::kCoded;
    }
  }

  // Of the pages that are not fine, by the largest of each page's shares.
  double mass_elsewhere() const {
    double sum = 0;
    for (int32_t p = 0; p < end_ - begin_; ++p) {
      double most = 0;
      for (int32_t g = 0; g < group_ && !fine_[p]; ++g) {
        double share = 0;
        for (int32_t t = p * kCodePage; t < (p + 1) * kCodePage; ++t)
          share += std::exp(double{logits_[g][t]} - levels_[g]);
        most = std::max(most, share);
      }
      sum += most;
    }
    return sum;
  }

  // Pages of the middle whose means are read.
  void find_means() {
    means_.assign(end_ - begin_, false);
    for (int32_t p = 0; p < end_ - begin_; ++p)
      for (int32_t g = 0; g < group_; ++g) {
        double unread = 0;
        for (int32_t t = p * kCodePage; t < (p + 1) * kCodePage; ++t)
          if (read_[t] == Read::kEstimated) unread += std::exp(double{logits_[g][t]} - levels_[g]);
        if (unread > 0 && unread >= kNegligible) means_[p] = true;
      }
  }

  Read how(int32_t position) const {
    const int32_t page = position / kCodePage;
    if (page < begin_ || page >= end_) return Read::kExact;
    const Read read = read_[position - begin_ * kCodePage];
    return read == Read::kEstimated && !means_[page - begin_] ? Read::kNot : read;
  }

  double true_logit(int32_t g, int32_t position) const {
    const int64_t at = (block(position / kCodePage) * kCodePage + position % kCodePage) * d_;
    double x = 0;
    for (int32_t i = 0; i < d_; ++i) x += double{query(g)[i]} * load(a_.cache.k, a_.cache.dtype, at + i);
    return x * a_.scale;
  }

  void attend(SparseStats* stats) {
    const int32_t last = row_.position;
    std::vector<double> logit(last + 1), sum(d_);
    std::vector<float> value(d_);
    double mass_of[3] = {};
    for (int32_t g = 0; g < group_; ++g) {
      double most = -INFINITY;
      for (int32_t p = 0; p <= last; ++p) {
        if (how(p) == Read::kExact) {
          logit[p] = true_logit(g, p);
        } else {
          logit[p] = logits_[g][p - begin_ * kCodePage];
        }
        most = std::max(most, logit[p]);
      }
      std::fill(sum.begin(), sum.end(), 0.0);
      double total = 0, parts[3] = {};
      for (int32_t p = 0; p <= last; ++p) {
        const Read read = how(p);
        if (read == Read::kNot) continue;
        const double weight = std::exp(logit[p] - most);
        total += weight;
        parts[static_cast<int>(read)] += weight;
        if (read == Read::kEstimated) {
          read_mean(d_, a_.cache.codes.mean + block(p / kCodePage) * mean_bytes(d_), value.data());
        } else {
          load_value(p, read, value);
        }
        for (int32_t i = 0; i < d_; ++i) sum[i] += weight * value[i];
      }
      float* out = a_.out + row_.row * a_.out_stride + (head_ * group_ + g) * d_;
      for (int32_t i = 0; i < d_; ++i) out[i] = static_cast<float>(sum[i] / total);
      for (int i = 0; i < 3; ++i) mass_of[i] += parts[i] / total / group_;
      if (a_.log_sums) a_.log_sums[(&row_ - a_.rows.data()) * a_.num_heads + head_ * group_ + g] = static_cast<float>(most + std::log(total));
      log_sums_.push_back(most + std::log(total));
    }
    if (a_.reads) show_reads(a_.reads + ((&row_ - a_.rows.data()) * a_.cache.kv_heads + head_) * a_.reads_stride);
    if (!stats) return;
    stats->exact_share = static_cast<float>(mass_of[static_cast<int>(Read::kExact)]);
    stats->coded_share = static_cast<float>(mass_of[static_cast<int>(Read::kCoded)]);
    stats->estimated_share = static_cast<float>(mass_of[static_cast<int>(Read::kEstimated)]);
    int64_t audited = 0;
    if (row_.audit != 0 && tokens_ > 0) audit(*stats, audited);
    stats->bytes = static_cast<float>(bytes_read() + audited * d_ * static_cast<int64_t>(dtype_bytes(a_.cache.dtype)));
  }

  void audit(SparseStats& stats, int64_t& read) const {
    std::vector<AuditItem> pages(end_ - begin_), coded;
    for (int32_t t = 0; t < tokens_; ++t) {
      double weight = 0;
      for (int32_t g = 0; g < group_; ++g) weight += std::exp(double{logits_[g][t]} - levels_[g]);
      if (read_[t] == Read::kCoded) coded.push_back({{t}, weight});
      if (read_[t] != Read::kEstimated) continue;
      pages[t / kCodePage].tokens.push_back(t);
      pages[t / kCodePage].weight += weight;
    }
    for (int32_t p = 0; p < end_ - begin_; ++p) pages[p].counted = means_[p];
    const auto mean_share = [&](auto&& logit) {
      double sum = 0;
      for (int32_t g = 0; g < group_; ++g) sum += std::exp(logit(g) - log_sums_[g]) / group_;
      return sum;
    };
    const AuditShares shares{
        [&](int32_t t) { return mean_share([&](int32_t g) { return true_logit(g, begin_ * kCodePage + t); }); },
        [&](int32_t t) { return mean_share([&](int32_t g) { return double{logits_[g][t]}; }); }};
    const AuditNumbers numbers = audit_numbers(row_.audit, head_);
    int64_t of_page = 0, of_token = 0;
    stats.page = draw(pages, numbers.page, shares, of_page);
    stats.token = draw(coded, numbers.token, shares, of_token);
    read = of_page + of_token;
  }

  void show_reads(SparseRead* to) const {
    for (int32_t p = 0; p <= row_.position; ++p) {
      const Read read = how(p);
      to[p] = read == Read::kExact ? SparseRead::kExact : read == Read::kCoded ? SparseRead::kCoded : SparseRead::kEstimated;
    }
  }

  void load_value(int32_t position, Read read, std::vector<float>& value) const {
    const int64_t token = block(position / kCodePage) * kCodePage + position % kCodePage;
    if (read == Read::kCoded && a_.cache.codes.values) {
      read_value(d_, a_.cache.codes.values + token * (d_ / 16), value.data());
      return;
    }
    for (int32_t i = 0; i < d_; ++i) value[i] = load(a_.cache.v, a_.cache.dtype, token * d_ + i);
  }

  int64_t bytes_read() const {
    const int64_t row_bytes = d_ * static_cast<int64_t>(dtype_bytes(a_.cache.dtype));
    int64_t exact = row_.position + 1 - tokens_, coded = 0;
    for (const Read r : read_) exact += r == Read::kExact, coded += r == Read::kCoded;
    const int64_t coded_value = a_.cache.codes.values ? value_token_bytes(d_) : row_bytes;
    const int64_t means = std::count(means_.begin(), means_.end(), true);
    return int64_t{end_ - begin_} * coarse_bytes(d_) + means * mean_bytes(d_) + int64_t{fine_pages_} * fine_bytes(d_) +
           exact * 2 * row_bytes + coded * coded_value;
  }

  const SparseAttentionArgs& a_;
  const SparseRow& row_;
  const int32_t head_, d_, group_;
  const int32_t* table_;
  int32_t begin_ = 0, end_ = 0, tokens_ = 0, fine_pages_ = 0;  // pages [begin_, end_) are the middle
  std::vector<std::vector<float>> logits_;                     // [group, tokens of the middle]
  std::vector<std::vector<int8_t>> coefficients_;              // [group, axes]
  std::vector<float> step_, coarse_shift_, fine_shift_, levels_;  // [group]
  std::vector<int32_t> keys_;
  std::vector<bool> fine_, means_;  // [pages of the middle]
  std::vector<double> log_sums_;    // [group], of the answer's exponentials
  std::vector<Read> read_;
};

}  // namespace

void encode_pages(const EncodeArgs& a) {
  const int32_t d = a.cache.head_dim, heads = a.cache.kv_heads;
  std::vector<float> u(kCodePage * d), value(d), mean(d);
  for (const int32_t page : a.pages)
    for (int32_t h = 0; h < heads; ++h) {
      const int64_t block = int64_t{page} * heads + h;
      std::vector<double> sums(d);
      for (int32_t t = 0; t < kCodePage; ++t) {
        const int64_t at = (block * kCodePage + t) * d;
        for (int32_t x = 0; x < d; ++x) {
          double sum = 0;
          for (int32_t i = 0; i < d; ++i)
            sum += a.map.to_axes[(int64_t{h} * d + x) * d + i] *
                   (double{load(a.cache.k, a.cache.dtype, at + i)} - a.map.mean[h * d + i]);
          u[t * d + x] = static_cast<float>(sum);
        }
        for (int32_t i = 0; i < d; ++i) sums[i] += value[i] = load(a.cache.v, a.cache.dtype, at + i);
        if (a.cache.codes.values) write_value(d, value.data(), a.cache.codes.values + (block * kCodePage + t) * (d / 16));
      }
      for (int32_t i = 0; i < d; ++i) mean[i] = static_cast<float>(sums[i] / kCodePage);
      write_key_codes(a.map.bits[h], d, u.data(), a.cache.codes.coarse + block * coarse_bytes(d),
                      a.cache.codes.fine + block * fine_bytes(d));
      write_mean(d, mean.data(), a.cache.codes.mean + block * mean_bytes(d));
    }
}

void sparse_attention(const SparseAttentionArgs& a, const BatchLayout& batch) {
  for (size_t r = 0; r < a.rows.size(); ++r)
    for (int32_t h = 0; h < a.cache.kv_heads; ++h)
      Selection(a, batch, a.rows[r], h).run(a.stats ? a.stats + r * a.cache.kv_heads + h : nullptr);
}

}  // namespace tinyserve::ops::ref
