#include "eval/code_study.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/ref/ref_codes.h"

namespace tinyserve::eval {
namespace {

constexpr int32_t kPage = ops::kCodePage;

double log_sum_exp(std::span<const float> x) {
  if (x.empty()) return -INFINITY;
  const float most = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const float v : x) sum += std::exp(v - most);
  return most + std::log(sum);
}

/// One row and KV head.
class Study {
 public:
  Study(const ops::AttentionArgs& args, const ops::BatchLayout& batch, const ops::SparseRow& row, int32_t head,
        const ops::SelectionMap& map, const StudyReads& reads)
      : a_(args),
        row_(row),
        head_(head),
        d_(args.cache.head_dim),
        group_(args.num_heads / args.cache.kv_heads),
        map_(map),
        reads_(reads),
        table_(batch.page_table + int64_t{row.seq} * batch.page_table_stride) {
    const int32_t full = (row.position + 1) / kPage;
    begin_ = std::min(reads.sinks, full);
    end_ = std::max(begin_, full - reads.recent);
    tokens_ = (end_ - begin_) * kPage;
  }

  std::vector<CodeStudy> run() {
    truth_.assign(static_cast<size_t>(group_), std::vector<float>(static_cast<size_t>(row_.position + 1)));
    coarse_.assign(static_cast<size_t>(group_), std::vector<float>(static_cast<size_t>(tokens_)));
    fine_ = coarse_;
    find_coefficients();
    for (int32_t p = 0; p <= row_.position / kPage; ++p) find_logits(p);
    choose();
    std::vector<CodeStudy> out;
    for (int32_t g = 0; g < group_; ++g) out.push_back(sum(static_cast<size_t>(g)));
    return out;
  }

 private:
  enum class Read : uint8_t { kCoarse, kFine, kCoded, kExact };

  int64_t block(int32_t page) const { return int64_t{table_[page]} * a_.cache.kv_heads + head_; }
  const float* query(int32_t g) const { return a_.q + row_.row * a_.q_stride + int64_t{head_ * group_ + g} * d_; }

  void find_coefficients() {
    coefficients_.assign(static_cast<size_t>(group_ * d_), 0);
    shift_.assign(static_cast<size_t>(group_), 0);
    coarse_offset_ = fine_offset_ = std::vector<double>(static_cast<size_t>(group_));
    for (int32_t g = 0; g < group_; ++g) {
      double mean = 0;
      for (int32_t i = 0; i < d_; ++i) mean += double{map_.mean[head_ * d_ + i]} * query(g)[i];
      shift_[static_cast<size_t>(g)] = static_cast<float>(mean * a_.scale);
      for (int32_t x = 0; x < d_; ++x) {
        double sum = 0;
        for (int32_t i = 0; i < d_; ++i)
          sum += double{map_.from_axes[(int64_t{head_} * d_ + x) * d_ + i]} * query(g)[i];
        const double c = sum * a_.scale;
        coefficients_[static_cast<size_t>(g * d_ + x)] = static_cast<float>(c * ops::kLevelStep);
        coarse_offset_[static_cast<size_t>(g)] += c * c * map_.coarse_error[head_ * d_ + x] / 2;
        fine_offset_[static_cast<size_t>(g)] += c * c * map_.fine_error[head_ * d_ + x] / 2;
      }
    }
  }

  void find_logits(int32_t page) {
    const int32_t filled = std::min(kPage, row_.position + 1 - page * kPage);
    std::vector<float> key(static_cast<size_t>(d_));
    for (int32_t t = 0; t < filled; ++t) {
      const int64_t at = (block(page) * kPage + t) * d_;
      for (int32_t i = 0; i < d_; ++i)
        key[static_cast<size_t>(i)] = a_.cache.dtype == DType::kF32
                                          ? reinterpret_cast<const float*>(a_.cache.k)[at + i]
                                          : to_float(reinterpret_cast<const BFloat16*>(a_.cache.k)[at + i]);
      for (int32_t g = 0; g < group_; ++g)
        truth_[static_cast<size_t>(g)][static_cast<size_t>(page * kPage + t)] =
            a_.scale * std::inner_product(key.begin(), key.end(), query(g), 0.0f);
    }
    if (page < begin_ || page >= end_) return;
    for (const bool fine : {false, true}) {
      int8_t levels[kPage * 256];
      ops::ref::read_key_codes(map_.bits[head_], d_, a_.cache.codes.coarse + block(page) * ops::coarse_bytes(d_),
                               fine ? a_.cache.codes.fine + block(page) * ops::fine_bytes(d_) : nullptr, levels);
      for (int32_t g = 0; g < group_; ++g) {
        std::vector<float>& to = (fine ? fine_ : coarse_)[static_cast<size_t>(g)];
        for (int32_t t = 0; t < kPage; ++t) {
          float x = shift_[static_cast<size_t>(g)];
          for (int32_t i = 0; i < d_; ++i)
            x += coefficients_[static_cast<size_t>(g * d_ + i)] * static_cast<float>(levels[t * d_ + i]);
          to[static_cast<size_t>((page - begin_) * kPage + t)] = x;
        }
      }
    }
  }

  /// [tokens of the middle], the best over the group of a logit beside that head's mass.
  std::vector<float> keys(const std::vector<std::vector<float>>& logits) const {
    std::vector<float> best(static_cast<size_t>(tokens_), -INFINITY);
    for (const std::vector<float>& x : logits) {
      const auto level = static_cast<float>(log_sum_exp(x));
      for (size_t t = 0; t < best.size(); ++t) best[t] = std::max(best[t], x[t] - level);
    }
    return best;
  }

  void choose() {
    read_.assign(static_cast<size_t>(tokens_), Read::kCoarse);
    if (tokens_ == 0) return;
    const std::vector<float> first = keys(with_offset(coarse_, coarse_offset_));
    std::vector<float> sorted = first;
    const auto rank = (tokens_ + reads_.fine_divisor - 1) / reads_.fine_divisor - 1;
    std::nth_element(sorted.begin(), sorted.begin() + rank, sorted.end(), std::greater<>());
    const float reached = sorted[static_cast<size_t>(rank)];
    std::vector<std::vector<float>> known = with_offset(coarse_, coarse_offset_);
    const std::vector<std::vector<float>> fine = with_offset(fine_, fine_offset_);
    for (int32_t p = 0; p < end_ - begin_; ++p) {
      const auto from = static_cast<size_t>(p * kPage);
      if (std::none_of(first.begin() + p * kPage, first.begin() + (p + 1) * kPage,
                       [&](float x) { return x >= reached; }))
        continue;
      for (size_t t = from; t < from + kPage; ++t) {
        read_[t] = Read::kFine;
        for (size_t g = 0; g < known.size(); ++g) known[g][t] = fine[g][t];
      }
    }
    const std::vector<float> second = keys(known);
    std::vector<int32_t> order;
    for (int32_t t = 0; t < tokens_; ++t)
      if (read_[static_cast<size_t>(t)] == Read::kFine) order.push_back(t);
    std::stable_sort(order.begin(), order.end(), [&](int32_t x, int32_t y) {
      return second[static_cast<size_t>(x)] > second[static_cast<size_t>(y)];
    });
    for (size_t i = 0; i < order.size() && i < static_cast<size_t>(reads_.exact + reads_.coded); ++i)
      read_[static_cast<size_t>(order[i])] = i < static_cast<size_t>(reads_.exact) ? Read::kExact : Read::kCoded;
  }

  static std::vector<std::vector<float>> with_offset(std::vector<std::vector<float>> logits,
                                                     const std::vector<double>& offset) {
    for (size_t g = 0; g < logits.size(); ++g)
      for (float& x : logits[g]) x += static_cast<float>(offset[g]);
    return logits;
  }

  CodeStudy sum(size_t g) const {
    const std::vector<float>& truth = truth_[g];
    const double level = log_sum_exp(truth);
    CodeStudy s{.coarse = {.offset = coarse_offset_[g]}, .fine = {.offset = fine_offset_[g]}, .log_mass = level};
    for (int32_t p = 0; p <= row_.position; ++p) {
      const double mass = std::exp(truth[static_cast<size_t>(p)] - level);
      const int32_t t = p - begin_ * kPage;
      const Read read = t < 0 || t >= tokens_ ? Read::kExact : read_[static_cast<size_t>(t)];
      if (read == Read::kExact) {
        s.exact += mass;
        continue;
      }
      PartMass& part = read == Read::kCoarse ? s.coarse : s.fine;
      part.truth += mass;
      part.codes += std::exp((read == Read::kCoarse ? coarse_ : fine_)[g][static_cast<size_t>(t)] - level);
      if (read == Read::kCoded) s.coded += mass;
    }
    return s;
  }

  const ops::AttentionArgs& a_;
  const ops::SparseRow& row_;
  const int32_t head_, d_, group_;
  const ops::SelectionMap& map_;
  const StudyReads& reads_;
  const int32_t* table_;
  int32_t begin_ = 0, end_ = 0, tokens_ = 0;  // pages [begin_, end_) are the middle
  std::vector<float> coefficients_, shift_;   // [group, axes], [group]
  std::vector<double> coarse_offset_, fine_offset_;
  std::vector<std::vector<float>> truth_;          // [group, positions]
  std::vector<std::vector<float>> coarse_, fine_;  // [group, tokens of the middle], without offsets
  std::vector<Read> read_;
};

constexpr double kMostFactor = 4;

}  // namespace

std::vector<CodeStudy> study_codes(const ops::AttentionArgs& args, const ops::BatchLayout& batch,
                                   const ops::SparseRow& row, int32_t head, const ops::SelectionMap& map,
                                   const StudyReads& reads) {
  return Study(args, batch, row, head, map, reads).run();
}

void OffsetFit::add(const PartMass& part) {
  if (part.truth > 0 && part.codes > 0 && part.offset > 0)
    queries_.push_back({std::log(part.truth / part.codes) / part.offset, part.truth * part.offset});
}

double OffsetFit::factor() const {
  std::vector<Query> sorted = queries_;
  std::sort(sorted.begin(), sorted.end(), [](const Query& a, const Query& b) { return a.needed < b.needed; });
  double all = 0, sum = 0;
  for (const Query& q : sorted) all += q.weight;
  for (const Query& q : sorted)
    if ((sum += q.weight) >= all / 2) return std::clamp(q.needed, 0.0, kMostFactor);
  return 1;
}

double OffsetFit::error(double factor) const {
  double sum = 0;
  for (const Query& q : queries_) sum += q.weight * std::abs(q.needed - factor);
  return queries_.empty() ? 0 : sum / static_cast<double>(queries_.size());
}

}  // namespace tinyserve::eval
