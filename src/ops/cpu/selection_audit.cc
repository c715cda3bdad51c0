// The audit of a sparse task (step 5 of SparseAttentionArgs): one page of what was estimated and one token that was
// read as codes, drawn while the answer is made and read when its sum is known.

#include "ops/selection_audit.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/cpu/selection_task.h"

namespace tinyserve::ops::cpu {
namespace {

constexpr int32_t kChunk = 32;  // of weights that are passed over together

}  // namespace

/// One of n > 0 weights, which go on with zeros up to a multiple of kChunk.
SparseTask::Drawn SparseTask::draw(const float* weights, int32_t n, double number) const {
  const auto chunk = [&](int32_t first) { return double{kernel_.total(weights + first, kChunk)}; };
  double total = 0;
  for (int32_t i = 0; i < n; i += kChunk) total += chunk(i);
  const bool blind = total == 0;  // nothing to go by
  int32_t at = 0;
  if (blind || number < kAuditEqual) {
    at = std::min(n - 1, static_cast<int32_t>((blind ? number : number / kAuditEqual) * n));
  } else {
    double left = (number - kAuditEqual) / (1 - kAuditEqual) * total;
    int32_t first = 0;
    for (; first + kChunk < n; first += kChunk) {
      const double here = chunk(first);
      if (left < here) break;
      left -= here;
    }
    const int32_t last = std::min(first + kChunk, n);
    for (int32_t i = first; i < last; ++i) {
      if (weights[i] == 0) continue;
      at = i;
      left -= double{weights[i]};
      if (left < 0) break;
    }
  }
  const double equal = 1.0 / n;
  return {at,
          static_cast<float>(blind ? equal : (1 - kAuditEqual) * double{weights[at]} / total + kAuditEqual * equal)};
}

/// While mass_ has every page's unread mass.
void SparseTask::draw_page() {
  maps_.combine(mass_, page_stride_, inverse_, heads_, page_stride_, false, page_weights_);
  drawn_page_ = draw(page_weights_, pages_, audit_numbers(row_.audit, head_).page);
  const int32_t page = drawn_page_.at;
  const int32_t* fine = std::lower_bound(fine_, fine_ + fine_pages_, page);
  drawn_left_ = fine < fine_ + fine_pages_ && *fine == page ? left_[fine - fine_] : uint16_t{0xFFFF};
  float most = 0;
  for (int32_t h = 0; h < heads_; ++h) {
    drawn_mass_[h] = mass_[h * page_stride_ + page];
    most = std::max(most, drawn_mass_[h] * inverse_[h]);
  }
  if (most < kNegligible) std::fill_n(drawn_mass_, heads_, 0.0f);  // left out
  const int64_t row = static_cast<int64_t>(d_ * dtype_bytes(a_.cache.dtype));
  const std::byte* k = a_.cache.k + block(begin_ + page) * kCodePage * row;
  for (int64_t at = 0; at < kCodePage * row; at += 64)
    if (drawn_left_ >> (at / row) & 1) __builtin_prefetch(k + at);
}

void SparseTask::draw_token() {
  if (num_coded_ == 0) return;
  drawn_token_ = draw(coded_weights_, num_coded_, audit_numbers(row_.audit, head_).token);
  const int64_t row = static_cast<int64_t>(d_ * dtype_bytes(a_.cache.dtype));
  const int32_t position = position_of(coded_[drawn_token_.at]);
  const std::byte* k = a_.cache.k + (block(position / kCodePage) * kCodePage + position % kCodePage) * row;
  for (int64_t at = 0; at < row; at += 64) __builtin_prefetch(k + at);
}

void SparseTask::audit(SparseStats& stats) {
  const int64_t row = static_cast<int64_t>(d_ * dtype_bytes(a_.cache.dtype));
  const float to_log2 = a_.scale * 1.44269504088896341f, share = 1 / static_cast<float>(heads_);
  float* dots = take<float>(heads_);
  const auto truth = [&](int32_t position) {
    const int64_t at = block(position / kCodePage) * kCodePage + position % kCodePage;
    maps_.dots(a_.cache.k + at * row, a_.cache.dtype, d_, query(0), heads_, dots);
    float sum = 0;
    for (int32_t h = 0; h < heads_; ++h) sum += std::exp2(dots[h] * to_log2 - log_sums_[h]);
    return sum * share;
  };
  const auto counted = [&](int32_t h, float mass) { return mass * std::exp2(reference_[h] - log_sums_[h]) * share; };
  stats.page.probability = drawn_page_.probability;
  for (uint32_t left = drawn_left_; left; left &= left - 1)
    stats.page.true_mass += truth((begin_ + drawn_page_.at) * kCodePage + std::countr_zero(left));
  for (int32_t h = 0; h < heads_; ++h) stats.page.counted += counted(h, drawn_mass_[h]);
  int64_t read = std::popcount(drawn_left_);
  if (drawn_token_.at >= 0) {
    const int32_t token = coded_[drawn_token_.at];
    stats.token.probability = drawn_token_.probability;
    stats.token.true_mass = truth(position_of(token));
    for (int32_t h = 0; h < heads_; ++h) stats.token.counted += counted(h, each_[h * each_stride_ + token]);
    ++read;
  }
  stats.bytes += static_cast<float>(read * row);
}

}  // namespace tinyserve::ops::cpu
