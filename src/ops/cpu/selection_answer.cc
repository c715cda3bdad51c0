// The end of a sparse task: what is read exactly, and one softmax over all grades.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/cpu/selection_task.h"

namespace tinyserve::ops::cpu {

/// The ends page by page where they lie; the unfinished page and the chosen tokens as copies, in blocks.
void SparseTask::attend_exact() {
  const size_t row = static_cast<size_t>(d_) * dtype_bytes(a_.cache.dtype), q_row = exact_.q_row_bytes(d_);
  std::byte* q = take_bytes(static_cast<size_t>(heads_) * q_row);
  for (int32_t h = 0; h < heads_; ++h) exact_.load_q(query(h), d_, a_.scale * 1.44269504088896341f, q + h * q_row);
  part_ = take<float>(state_floats(heads_, d_));
  total_ = take<float>(state_floats(heads_, d_));
  const RowState part = state_at(part_, heads_, d_), total = state_at(total_, heads_, d_);
  for (const RowState& state : {part, total}) {
    std::fill_n(state.acc, int64_t{heads_} * padded_dim(d_), 0.0f);
    std::fill_n(state.sum, int64_t{heads_} * kSumLanes, 0.0f);
    std::fill_n(state.maximum, heads_, kNoMaximum);
  }
  int32_t* first = take<int32_t>(heads_);
  int32_t* last = take<int32_t>(heads_);
  std::fill_n(first, heads_, 0);
  BlockRows rows{.packed = take_bytes(exact_.packed_block_bytes(d_)), .q = q, .first = first, .last = last, .state = part,
                 .start = 0, .num_rows = heads_, .head_dim = d_, .softcap = 0, .scratch = take_bytes(kRowScratchBytes)};
  BlockSource source{};
  const auto run = [&](int32_t count) {
    source.begin = 0;
    source.end = count;
    std::fill_n(last, heads_, count - 1);
    exact_.run(source, rows);
    source = {};
  };
  int32_t runs = 0;
  for (int32_t page = begin_ > 0 ? 0 : end_; page < full_; page = page + 1 == begin_ ? end_ : page + 1) {
    source.k[runs] = a_.cache.k + static_cast<size_t>(block(page)) * kCodePage * row;
    source.v[runs] = a_.cache.v + static_cast<size_t>(block(page)) * kCodePage * row;
    if (++runs == kRunsPerBlock) run(runs * kRun), runs = 0;
  }
  if (runs > 0) run(runs * kRun);

  std::byte *k = take_bytes(kBlock * row), *v = take_bytes(kBlock * row);
  int32_t count = 0;
  const auto flush = [&] {
    for (int32_t r = 0; r * kRun < count; ++r) {
      source.k[r] = k + static_cast<size_t>(r) * kRun * row;
      source.v[r] = v + static_cast<size_t>(r) * kRun * row;
    }
    run(count);
    count = 0;
  };
  const auto add = [&](int32_t position) {
    const size_t at = (static_cast<size_t>(block(position / kCodePage)) * kCodePage + position % kCodePage) * row;
    std::memcpy(k + count * row, a_.cache.k + at, row);
    std::memcpy(v + count * row, a_.cache.v + at, row);
    if (++count == kBlock) flush();
  };
  for (int32_t i = 0; i < num_exact_; ++i) add(position_of(chosen_[i]));
  for (int32_t position = full_ * kCodePage; position <= row_.position; ++position) add(position);
  if (count > 0) flush();
  exact_.fold(total, part, heads_, d_);
}

float SparseTask::bytes_read() const {
  const int64_t row = static_cast<int64_t>(d_ * dtype_bytes(a_.cache.dtype));
  const int64_t exact = row_.position + 1 - int64_t{pages_} * kCodePage + num_exact_;
  return static_cast<float>(int64_t{pages_} * coarse_bytes(d_) + int64_t{mean_pages_} * mean_bytes(d_) + int64_t{fine_pages_} * fine_bytes(d_) +
                            exact * 2 * row + num_coded_ * (a_.cache.codes.values ? value_token_bytes(d_) : row));
}

void SparseTask::show_reads() const {
  SparseRead* to = a_.reads + ((&row_ - a_.rows.data()) * a_.cache.kv_heads + head_) * a_.reads_stride;
  std::fill_n(to, row_.position + 1, SparseRead::kExact);
  std::fill(to + int64_t{begin_} * kCodePage, to + int64_t{end_} * kCodePage, SparseRead::kEstimated);
  for (int32_t i = 0; i < num_exact_; ++i) to[position_of(chosen_[i])] = SparseRead::kExact;
  for (int32_t i = 0; i < num_coded_; ++i) to[position_of(coded_[i])] = SparseRead::kCoded;
}

void SparseTask::write_out(SparseStats* stats) {
  const RowState total = state_at(total_, heads_, d_);
  float shares[3] = {};
  float* estimates = take<float>(d_);
  for (int32_t h = 0; h < heads_; ++h) {
    const float reference = pages_ > 0 ? reference_[h] : kNoMaximum, maximum = std::max(total.maximum[h], reference);
    const float exact = std::exp2(total.maximum[h] - maximum), rest = std::exp2(reference - maximum);
    const float of_exact = total.sum[h * kSumLanes] * exact, of_rest = (estimated_[h] + coded_mass_[h]) * rest;
    const float inverse = 1 / (of_exact + of_rest);
    log_sums_[h] = maximum + std::log2(of_exact + of_rest);
    kernel_.sums.read_acc(acc_ + int64_t{h} * padded_channels(d_), d_, estimates);
    const float *acc = total.acc + int64_t{h} * padded_dim(d_), *plain = plain_ + int64_t{h} * d_;
    float* out = a_.out + row_.row * a_.out_stride + (int64_t{head_} * heads_ + h) * d_;
    for (int32_t i = 0; i < d_; ++i) out[i] = (acc[i] * exact + (estimates[i] + plain[i]) * rest) * inverse;
    shares[0] += of_exact * inverse;
    shares[1] += coded_mass_[h] * rest * inverse;
    shares[2] += estimated_[h] * rest * inverse;
    if (a_.log_sums) {
      const auto row = &row_ - a_.rows.data();
      a_.log_sums[row * a_.num_heads + int64_t{head_} * heads_ + h] = (maximum + std::log2(of_exact + of_rest)) * 0.693147180559945309f;
    }
  }
  if (a_.reads) show_reads();
  if (!stats) return;
  const float n = static_cast<float>(heads_);
  *stats = {.bytes = bytes_read(), .exact_share = shares[0] / n, .coded_share = shares[1] / n, .estimated_share = shares[2] / n};
}

}  // namespace tinyserve::ops::cpu
