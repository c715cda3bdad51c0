#include "engine/token_selection.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/row_scans.h"

namespace tinyserve {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int32_t num_blocks(int32_t n) { return (n + row_scans::kBlock - 1) / row_scans::kBlock; }

// Bins of weights in (0, 1]: the exponent and the first four bits of the mantissa, so that a bin's weights differ by
// less than 1/16.
constexpr int32_t kBinShift = 19;
constexpr int32_t kNumBins = (std::bit_cast<int32_t>(1.0f) >> kBinShift) + 1;
int32_t bin_of(float weight) { return std::bit_cast<int32_t>(weight) >> kBinShift; }

}  // namespace

Candidate argmax(const float* x, int32_t n) {
  const float max = row_scans::max_or_nan(x, n);
  if (!std::isfinite(max)) return {max, -1};
  for (int32_t i = row_scans::next_block_above(x, 0, n, std::nextafter(max, -kInf));; ++i) {
    if (x[i] == max) return {max, i};
  }
}

void select_top(const float* x, int32_t n, int32_t k, std::vector<Candidate>& out) {
  out.clear();
  k = std::min(k, n);
  if (k <= 0) return;
  // Collect what beats the k-th best so far; when twice as many (and at least 64 more) have come together, cut back.
  const size_t limit = std::max<size_t>(size_t{2} * k, k + 64);
  out.reserve(std::min<size_t>(limit, n));
  bool full = false;  // until k are there nothing is refused, not even -inf; then equal values that come later lose
  float threshold = -kInf;
  auto cut = [&] {
    std::nth_element(out.begin(), out.begin() + (k - 1), out.end(), better);
    out.resize(k);
    threshold = out[k - 1].value;
    full = true;
  };
  for (int32_t begin = 0; begin < n; begin += 64) {
    if (full) begin = row_scans::next_block_above(x, begin, n, threshold);
    const int32_t end = std::min(begin + 64, n);
    for (int32_t i = begin; i < end; ++i) {
      if (full && !(x[i] > threshold)) continue;
      out.push_back({x[i], i});
      if (out.size() == limit) cut();
    }
  }
  if (static_cast<int32_t>(out.size()) > k) cut();
  std::sort(out.begin(), out.end(), better);
}

double log_sum_exp(const float* x, int32_t n, float max) {
  constexpr int32_t kAtOnce = 64;
  double total = 0, sums[kAtOnce];
  for (int32_t begin = 0; begin < n; begin += kAtOnce * row_scans::kBlock) {
    const int32_t count = std::min(kAtOnce * row_scans::kBlock, n - begin);
    row_scans::exp_weights(x + begin, count, max, 1, nullptr, sums);
    total = std::accumulate(sums, sums + num_blocks(count), total);
  }
  return max + std::log(total);
}

TokenWeights::TokenWeights(int32_t n) : n_(n), weights_(n), block_sums_(num_blocks(n)), histogram_(kNumBins) {}

void TokenWeights::assign(const float* x, float max, float temperature) {
  row_scans::exp_weights(x, n_, max, temperature, weights_.data(), block_sums_.data());
  total_ = std::accumulate(block_sums_.begin(), block_sums_.end(), 0.0);
}

void TokenWeights::keep_from(float floor) { cut({floor, n_}); }

void TokenWeights::keep_share(double share) {
  if (share < 1) cut(find_last_kept(share * total_));
}

void TokenWeights::cut(const Candidate& last) {
  row_scans::cut_weights(weights_.data(), n_, last.value, last.id, block_sums_.data());
  total_ = std::accumulate(block_sums_.begin(), block_sums_.end(), 0.0);
}

/// The worst of the fewest best that together weigh `wanted`: bins from the top until one reaches it, then a sort of
/// that bin alone.
Candidate TokenWeights::find_last_kept(double wanted) {
  std::fill(histogram_.begin(), histogram_.end(), 0.0);
  // All weights below this one together weigh less than what may be dropped, so none of them can be the last kept.
  const float negligible = static_cast<float>((total_ - wanted) / n_ * 0.999);
  for (const float w : weights_) {
    if (w >= negligible) histogram_[bin_of(w)] += w;
  }
  int32_t bin = kNumBins - 1;
  double sum = 0;
  for (; bin > 0 && sum + histogram_[bin] < wanted; --bin) sum += histogram_[bin];
  bin_.clear();
  for (int32_t i = 0; i < n_; ++i) {
    if (bin_of(weights_[i]) == bin && weights_[i] > 0) bin_.push_back({weights_[i], i});
  }
  std::sort(bin_.begin(), bin_.end(), better);
  for (const Candidate& c : bin_) {
    sum += c.value;
    if (sum >= wanted) return c;
  }
  // Rounding: the parts fell short of the whole. The whole bin is kept.
  return bin_.empty() ? Candidate{0, n_} : bin_.back();
}

int32_t TokenWeights::at(double u) const {
  double left = u * total_;
  size_t block = 0;
  while (block + 1 < block_sums_.size() && left >= block_sums_[block]) left -= block_sums_[block++];
  const int32_t begin = static_cast<int32_t>(block) * row_scans::kBlock, end = std::min(begin + row_scans::kBlock, n_);
  int32_t last = -1;
  // Sums of parts and of wholes round differently: past the end of its block the draw is the block's last possible one.
  for (int32_t i = begin; i < end; ++i) {
    if (weights_[i] <= 0) continue;
    last = i;
    left -= weights_[i];
    if (left < 0) return i;
  }
  for (int32_t i = n_ - 1; last < 0; --i) {
    if (weights_[i] > 0) last = i;  // the draw fell on an empty last block
  }
  return last;
}

}  // namespace tinyserve
