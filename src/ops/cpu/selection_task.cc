#include "ops/cpu/selection_task.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace tinyserve::ops::cpu {
namespace {

// A head's logits may rise so far above its reference, in units of log2, before that is moved.
constexpr float kHeadroom = 40;
// Beyond so many tiles the threshold of fine pages comes from a sample of the tokens, about so many tiles of them: 8,192 tokens
// know the rank of one among all to half a percent.
constexpr int32_t kSampleTiles = 32;
constexpr int32_t kRowsAtOnce = 2 * kPairs;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace

uint64_t SelectionTrace::now() {
#if defined(__x86_64__)
  return __rdtsc();
#else
  return 0;
#endif
}

SparseTask::SparseTask(const SparseAttentionArgs& args, const BatchLayout& batch, const SparseRow& row, int32_t head,
                       const SelectionKernel& kernel, const SelectionMaps& maps, const AttentionKernel& exact,
                       std::byte* scratch, SelectionTrace* trace)
    : a_(args),
      row_(row),
      table_(batch.page_table + int64_t{row.seq} * batch.page_table_stride),
      head_(head),
      heads_(args.num_heads / args.cache.kv_heads),
      d_(args.cache.head_dim),
      kernel_(kernel),
      maps_(maps),
      exact_(exact),
      next_(scratch),
      trace_(trace) {
  full_ = (row.position + 1) / kCodePage;
  begin_ = std::min(args.sinks, full_);
  end_ = std::max(begin_, full_ - args.recent);
  pages_ = end_ - begin_;
  page_stride_ = round_up(pages_ + 1, 2 * kTilePages);  // one weight more than pages for add_means()
  const int32_t tiles = (pages_ + kTilePages - 1) / kTilePages;
  sample_every_ = std::max(1, tiles / kSampleTiles);
  sample_stride_ = int64_t{(tiles + sample_every_ - 1) / sample_every_} * kTileTokens;
}

std::byte* SparseTask::take_bytes(size_t bytes) {
  std::byte* at = next_;
  next_ += round_up(static_cast<int64_t>(bytes), 64);
  return at;
}

size_t SparseTask::scratch_bytes(const Limits& limits, const AttentionKernel& f32, const AttentionKernel& bf16) {
  const int64_t heads = std::max(1, limits.max_heads), d = round_up(std::max(16, limits.max_head_dim), kChannelBlock);
  const int64_t pages = round_up(limits.max_context / kCodePage + 2, 2 * kTilePages), tokens = pages * kCodePage;
  const int64_t per_head =
      512 + 3 * d * 4 + 2 * pages * 4 + tokens * 4 + 2 * kSampleTiles * kTileTokens * 4 +
      4 * state_floats(1, static_cast<int>(d)) * 4 + 64 + (kRowsAtOnce + 16) * 4 +
      static_cast<int64_t>(std::max(f32.q_row_bytes(static_cast<int>(d)), bf16.q_row_bytes(static_cast<int>(d))));
  const int64_t packed = static_cast<int64_t>(std::max(f32.packed_block_bytes(static_cast<int>(d)), bf16.packed_block_bytes(static_cast<int>(d))));
  const int64_t shared = pages * (8 + 2 + 4 + 2 + 4 + 4 + 4) + tokens * (2 + 2 + 2 + 4 + 4 + 4) + 2 * kBlock * d * 4 + packed +
                         kHeadsAtOnce * kTileTokens * 4 +
                         static_cast<int64_t>(2 * kSelectionScratchBytes + kRowScratchBytes);
  return static_cast<size_t>(std::max(heads * per_head + shared + 64 * 64, encode_scratch_floats(static_cast<int>(d)) * 4));
}

void SparseTask::lay_out() {
  queries_ = take<AxesQuery>(heads_);
  packed_ = take<int32_t>(int64_t{heads_} * d_ / 4);
  for (int32_t** p : {&coarse_start_, &fine_start_}) *p = take<int32_t>(heads_);
  for (float** p : {&step_, &base_, &reference_, &inverse_, &estimated_, &coded_mass_}) *p = take<float>(heads_);
  sums_ = take<int32_t>(kHeadsAtOnce * kTileTokens);
  mass_ = take<float>(heads_ * page_stride_);
  largest_ = take<int32_t>(heads_ * page_stride_);
  page_keys_ = take<uint16_t>(page_stride_);
  fine_ = take<int32_t>(page_stride_ + kListSlack);
  left_ = take<uint16_t>(page_stride_);
  touched_ = take<int32_t>(page_stride_ + kListSlack);
  blocks_ = take<int64_t>(page_stride_);
  for (int32_t p = 0; p < pages_; ++p) blocks_[p] = block(begin_ + p);
  mean_ = take<int32_t>(page_stride_);
  acc_ = take<float>(int64_t{heads_} * padded_channels(d_));
  plain_ = take<float>(int64_t{heads_} * d_);
  page_weights_ = take<float>(page_stride_);
  log_sums_ = take<float>(heads_);
  drawn_mass_ = take<float>(heads_);
  std::fill_n(acc_, int64_t{heads_} * padded_channels(d_), 0.0f);
  std::fill_n(plain_, int64_t{heads_} * d_, 0.0f);
  std::fill_n(estimated_, heads_, 0.0f);
  std::fill_n(coded_mass_, heads_, 0.0f);
}

void SparseTask::run(SparseStats* stats) {
  uint64_t since = trace_ ? SelectionTrace::now() : 0;
  const auto done = [&](SelectionTrace::Phase phase) {
    if (!trace_) return;
    const uint64_t now = SelectionTrace::now();
    trace_->ticks[phase] += now - since;
    since = now;
  };
  lay_out();
  if (pages_ > 0) {
    load_queries();
    done(SelectionTrace::kQueries);
    score_coarse();
    done(SelectionTrace::kCoarse);
    choose_pages();
    done(SelectionTrace::kPages);
    score_fine();
    done(SelectionTrace::kFine);
    choose_tokens();
    done(SelectionTrace::kTokens);
    add_means();
    done(SelectionTrace::kMeans);
    add_coded();
    done(SelectionTrace::kCoded);
  }
  attend_exact();
  write_out(stats);
  done(SelectionTrace::kExact);
  if (row_.audit != 0 && stats && pages_ > 0) audit(*stats);
  done(SelectionTrace::kAudit);
}

void SparseTask::load_queries() {
  int8_t* bytes = reinterpret_cast<int8_t*>(sums_);  // both are free as yet
  float* c = mass_;
  AxesArgs axes{.map = &a_.map, .head = head_, .head_dim = d_, .q = nullptr, .scale = a_.scale};
  for (int32_t h = 0; h < heads_; ++h) {
    axes.q = query(h);
    queries_[h] = maps_.load_query(axes, bytes, c);
    step_[h] = queries_[h].step;
    coarse_start_[h] = queries_[h].coarse_start;
    fine_start_[h] = queries_[h].fine_start;
    const int32_t first = h / kHeadsAtOnce * kHeadsAtOnce, together = std::min(kHeadsAtOnce, heads_ - first);
    int32_t* to = packed_ + int64_t{first} * d_ / 4 + (h - first);
    for (int32_t g = 0; g < d_ / 4; ++g) std::memcpy(to + int64_t{g} * together, bytes + 4 * g, 4);
  }
}

/// Sums of the middle's pages, tile by tile; each_head(tile, head, sums).
template <class Fn>
void SparseTask::score_tiles(const int32_t* pages, int32_t count, bool fine, Fn&& each_head) {
  const int32_t tiles = (count + kTilePages - 1) / kTilePages, coarse_size = coarse_bytes(d_), fine_size = fine_bytes(d_);
  TileCodes codes[2];
  const auto find = [&](int32_t tile) {
    TileCodes& to = codes[tile % 2];
    to.with_fine = fine, to.coarse_bytes = coarse_size, to.fine_bytes = fine_size;
    for (int32_t i = 0; i < kTilePages; ++i) {
      const int32_t at = std::min(tile * kTilePages + i, count - 1);
      const int64_t block = blocks_[pages ? pages[at] : at];
      to.coarse[i] = a_.cache.codes.coarse + block * coarse_size;
      to.fine[i] = a_.cache.codes.fine + block * fine_size;
    }
  };
  if (tiles > 0) find(0);
  for (int32_t tile = 0; tile < tiles; ++tile) {
    const TileCodes* ahead = nullptr;
    if (tile + 1 < tiles) find(tile + 1), ahead = &codes[(tile + 1) % 2];
    for (int32_t first = 0; first < heads_; first += kHeadsAtOnce, ahead = nullptr) {
      const int32_t together = std::min(kHeadsAtOnce, heads_ - first);
      kernel_.score(a_.map.bits[head_], codes[tile % 2],
                    {.q = packed_ + int64_t{first} * d_ / 4, .start = (fine ? fine_start_ : coarse_start_) + first, .heads = together},
                    sums_, ahead);
      for (int32_t h = 0; h < together; ++h) each_head(tile, first + h, sums_ + h * kTileTokens);
    }
  }
}

void SparseTask::raise(int32_t h, float reference, int32_t pages_done, int64_t sampled) {
  const float factor = std::exp2(reference_[h] - reference);
  float *mass = mass_ + h * page_stride_, *sample = sample_ + h * sample_stride_;
  for (int32_t p = 0; p < pages_done; ++p) mass[p] *= factor;
  for (int64_t t = 0; t < sampled; ++t) sample[t] *= factor;
  reference_[h] = reference;
}

void SparseTask::score_coarse() {
  sample_ = take<float>(heads_ * sample_stride_);
  const auto sampled_before = [&](int32_t tile) {  // tokens; only the last tile may have fewer than kTileTokens
    return std::min(int64_t{(tile + sample_every_ - 1) / sample_every_} * kTileTokens, sample_stride_);
  };
  score_tiles(nullptr, pages_, false, [&](int32_t tile, int32_t h, const int32_t* sums) {
    const int32_t p0 = tile * kTilePages;
    const int64_t sampled = sampled_before(tile);
    const float shift = queries_[h].coarse_shift;
    const int32_t largest = kernel_.maxima(sums, largest_ + h * page_stride_ + p0);
    const float most = static_cast<float>(largest) * step_[h] + shift;
    if (p0 == 0) reference_[h] = std::floor(most);
    else if (most > reference_[h] + kHeadroom) raise(h, std::floor(most), p0, sampled);
    kernel_.masses(sums, step_[h], shift - reference_[h],
                   tile % sample_every_ == 0 ? sample_ + h * sample_stride_ + sampled : nullptr, mass_ + h * page_stride_ + p0);
  });
  const int32_t tiles = (pages_ + kTilePages - 1) / kTilePages;
  sampled_ = sampled_before(tiles);
  if ((tiles - 1) % sample_every_ == 0) sampled_ -= int64_t{tiles * kTilePages - pages_} * kCodePage;
  for (int32_t h = 0; h < heads_; ++h)
    std::fill(mass_ + h * page_stride_ + pages_, mass_ + (h + 1) * page_stride_, 0.0f);
}

void SparseTask::invert_totals() {
  for (int32_t h = 0; h < heads_; ++h) {
    const float total = kernel_.total(mass_ + h * page_stride_, page_stride_);
    base_[h] = queries_[h].coarse_shift - reference_[h] - std::log2(total);
    inverse_[h] = total > 0 ? 1 / total : 0;
  }
}

void SparseTask::choose_pages() {
  invert_totals();
  token_keys_ = take<uint16_t>(sample_stride_);
  kernel_.token_keys(sample_, sample_stride_, inverse_, heads_, static_cast<int32_t>(sampled_ / kCodePage), token_keys_);
  const int32_t least = kernel_.reached_by(token_keys_, sampled_, (sampled_ + a_.fine_divisor - 1) / a_.fine_divisor);
  for (int32_t p = 0; p < pages_; p += kTilePages)
    kernel_.page_keys(largest_ + p, page_stride_, step_, base_, heads_, page_keys_ + p);
  fine_pages_ = kernel_.choose_pages(page_keys_, pages_, least, fine_);
  each_stride_ = round_up(fine_pages_, kTilePages) * kCodePage;
  each_ = take<float>(heads_ * each_stride_);
  token_keys_ = take<uint16_t>(each_stride_);
  chosen_ = take<int32_t>(each_stride_ + kListSlack);
  coded_ = take<int32_t>(each_stride_ + kListSlack);
}

void SparseTask::score_fine() {
  score_tiles(fine_, fine_pages_, true, [&](int32_t tile, int32_t h, const int32_t* sums) {
    const int32_t f0 = tile * kTilePages, count = std::min(kTilePages, fine_pages_ - f0);
    float mass[kTilePages];
    kernel_.masses(sums, step_[h], queries_[h].fine_shift - reference_[h], each_ + h * each_stride_ + int64_t{f0} * kCodePage, mass);
    float* to = mass_ + h * page_stride_;
    for (int32_t f = 0; f < count; ++f) to[fine_[f0 + f]] = mass[f];
  });
}

/// Of the pages that are not fine, by the largest of each page's shares (step 3, top_p).
float SparseTask::mass_elsewhere() {
  maps_.combine(mass_, page_stride_, inverse_, heads_, page_stride_, true, page_weights_);
  for (int32_t f = 0; f < fine_pages_; ++f) page_weights_[fine_[f]] = 0;
  return kernel_.total(page_weights_, page_stride_);
}

void SparseTask::choose_tokens() {
  invert_totals();
  kernel_.token_keys(each_, each_stride_, inverse_, heads_, fine_pages_, token_keys_);
  int32_t num_touched = 0;
  kernel_.choose_tokens(token_keys_, fine_pages_,
                        {.exact = row_.exact, .coded = row_.coded, .top_p = row_.top_p,
                         .elsewhere = row_.top_p > 0 ? mass_elsewhere() : 0, .exact_tokens = chosen_, .coded_tokens = coded_,
                         .num_exact = &num_exact_, .num_coded = &num_coded_, .left = left_, .touched = touched_,
                         .num_touched = &num_touched, .scratch = take<uint16_t>(each_stride_ + 32)});
  for (int32_t i0 = 0; i0 < num_touched; i0 += kTilePages) {  // what is left of the touched pages
    const int32_t count = std::min(kTilePages, num_touched - i0);
    int32_t pages[kTilePages];
    for (int32_t i = 0; i < kTilePages; ++i) pages[i] = touched_[i0 + std::min(i, count - 1)];
    for (int32_t h = 0; h < heads_; ++h) {
      float mass[kTilePages];
      kernel_.masses_left(each_ + h * each_stride_, left_, pages, mass);
      float* to = mass_ + h * page_stride_;
      for (int32_t i = 0; i < count; ++i) to[fine_[pages[i]]] = mass[i];
    }
  }
  if (row_.audit != 0) draw_page();
  mean_pages_ = kernel_.keep_heavy(mass_, page_stride_, inverse_, heads_, pages_, kNegligible, mean_);
  const int64_t room = std::min(page_stride_, round_up(mean_pages_ + 1, kTilePages));
  for (int32_t h = 0; h < heads_; ++h) {
    std::fill(mass_ + h * page_stride_ + mean_pages_, mass_ + h * page_stride_ + room, 0.0f);
    estimated_[h] = kernel_.total(mass_ + h * page_stride_, room);
  }
}

int32_t SparseTask::position_of(int32_t chosen) const {
  return (begin_ + fine_[chosen / kCodePage]) * kCodePage + chosen % kCodePage;
}

/// What add_coded() and attend_exact() will read, in equal parts: the rows lie anywhere, and reading them waits for memory.
void SparseTask::tokens_ahead(int32_t part, int32_t parts, Lines& ahead) const {
  const auto share = [&](int32_t n, int32_t i) { return static_cast<int32_t>(int64_t{n} * i / parts); };
  const int64_t row = static_cast<int64_t>(d_ * dtype_bytes(a_.cache.dtype));
  const auto at = [&](int32_t chosen) { return token_at(chosen); };
  for (int32_t i = share(num_coded_, part); i < share(num_coded_, part + 1); ++i) {
    if (a_.cache.codes.values) ahead.add(a_.cache.codes.values + at(coded_[i]) * (d_ / 16), d_ / 2);
    else ahead.add(a_.cache.v + at(coded_[i]) * row, row);
  }
  for (int32_t i = share(num_exact_, part); i < share(num_exact_, part + 1); ++i) {
    ahead.add(a_.cache.k + at(chosen_[i]) * row, row);
    ahead.add(a_.cache.v + at(chosen_[i]) * row, row);
  }
}

void SparseTask::add_means() {
  std::byte* scratch = take_bytes(kSelectionScratchBytes);
  const int32_t bytes = mean_bytes(d_), parts = std::max(1, (mean_pages_ + kRowsAtOnce - 1) / kRowsAtOnce);
  const auto mean_of = [&](int32_t i) { return a_.cache.codes.mean + blocks_[mean_[i]] * bytes; };
  Lines ahead;
  for (int32_t part = 0; part < parts; ++part) {
    const int32_t i0 = part * kRowsAtOnce, count = std::min(kRowsAtOnce, mean_pages_ - i0);
    const uint8_t* means[kRowsAtOnce];
    for (int32_t i = 0; i < count; ++i) means[i] = mean_of(i0 + i);
    for (int32_t i = i0 + count; i < std::min(i0 + 2 * kRowsAtOnce, mean_pages_); ++i) ahead.add(mean_of(i), bytes);
    tokens_ahead(part, parts, ahead);
    if (count > 0) kernel_.sums.add_means(means, count, d_, mass_ + i0, page_stride_, heads_, acc_, scratch, ahead);
    ahead.count = 0;
  }
}

void SparseTask::add_coded() {
  constexpr int32_t kStride = kRowsAtOnce + 16;
  std::byte* scratch = take_bytes(kSelectionScratchBytes);
  float* weights = take<float>(int64_t{heads_} * kStride);
  if (row_.audit != 0) coded_weights_ = take<float>(round_up(num_coded_, kRowsAtOnce));
  Lines none;
  for (int32_t i0 = 0; i0 < num_coded_; i0 += kRowsAtOnce) {
    const int32_t count = std::min(kRowsAtOnce, num_coded_ - i0);
    const uint64_t* values[kRowsAtOnce];
    for (int32_t h = 0; h < heads_; ++h) {
      const float* each = each_ + h * each_stride_;
      float* to = weights + h * kStride;
      for (int32_t i = 0; i < count; ++i) to[i] = each[coded_[i0 + i]];
      std::fill(to + count, to + kStride, 0.0f);
      coded_mass_[h] += kernel_.total(to, kStride);
    }
    if (row_.audit != 0) maps_.combine(weights, kStride, inverse_, heads_, kRowsAtOnce, false, coded_weights_ + i0);
    for (int32_t i = 0; i < count; ++i) {
      const int64_t at = token_at(coded_[i0 + i]);
      if (a_.cache.codes.values) values[i] = a_.cache.codes.values + at * (d_ / 16);
      else maps_.add_row(a_.cache.v + at * static_cast<int64_t>(d_ * dtype_bytes(a_.cache.dtype)), a_.cache.dtype, d_, weights + i,
                    kStride, heads_, plain_);
    }
    if (a_.cache.codes.values) kernel_.sums.add_values(values, count, d_, weights, kStride, heads_, acc_, scratch, none);
  }
  if (row_.audit != 0) draw_token();
}

}  // namespace tinyserve::ops::cpu
