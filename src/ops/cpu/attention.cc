#include "ops/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/thread_pool.h"

namespace tinyserve::ops::cpu {
namespace {

constexpr int32_t kMinTileRows = 48;  // below this, packing a block costs a noticeable part of using it
constexpr int32_t kMaxTileRows = 384;
constexpr int64_t kTileFloats = 24576;  // accumulators of a tile, about 100 KB: they stay in a core's L2
constexpr int32_t kItemsPerThread = 8;  // the last item ends at most 1/8 of a thread's share after the others
constexpr int32_t kBlocksAhead = 1;     // prefetched
constexpr size_t kPartialBytes = size_t{32} << 20;
// Cost of reading and packing one position, in units of what one row costs on it.
constexpr double kReadCost = 12;
// A call cheaper than this (about 2 us) runs on the caller: handing work over costs as much.
constexpr double kInlineCost = 1500;

int32_t max_tile_rows(int head_dim) {
  return static_cast<int32_t>(std::clamp<int64_t>(kTileFloats / padded_dim(head_dim), kMinTileRows, kMaxTileRows));
}

size_t round_up(size_t n) { return (n + 63) / 64 * 64; }

/// Of `rows` query rows of one KV head.
double cost_of(int64_t rows, int64_t positions) {
  return static_cast<double>(positions) * (static_cast<double>(rows) + kReadCost);
}

void clear(const RowState& state, int32_t rows, int head_dim) {
  std::fill_n(state.acc, int64_t{rows} * padded_dim(head_dim), 0.0f);
  std::fill_n(state.sum, int64_t{rows} * kSumLanes, 0.0f);
  std::fill_n(state.maximum, rows, kNoMaximum);
}

}  // namespace

CpuAttention::CpuAttention(ThreadPool& pool, Isa isa)
    : pool_(pool),
      f32_(attention_kernel_f32(DType::kF32)),
      bf16_(isa >= Isa::kAvx512Bf16 ? attention_kernel_avx512bf16() : attention_kernel_f32(DType::kBF16)) {}

void CpuAttention::reserve(const Limits& limits) {
  limits_ = limits;
  planned_shape_ = {};
  const int threads = pool_.num_threads();
  const int64_t heads = std::max(1, limits.max_heads);
  const int64_t tiles = limits.max_tokens * heads / kMinTileRows + limits.max_seqs * heads;
  tiles_.reserve(static_cast<size_t>(tiles));
  planned_kv_lens_.reserve(static_cast<size_t>(limits.max_seqs));
  planned_query_lens_.reserve(static_cast<size_t>(limits.max_seqs + 1));
  items_.reserve(static_cast<size_t>(tiles + 4 * kItemsPerThread * threads));
  pending_ = std::make_unique<std::atomic<int32_t>[]>(static_cast<size_t>(kItemsPerThread) * threads);
  partials_ = AlignedBuffer(kPartialBytes);
  threads_ = std::vector<Thread>(static_cast<size_t>(threads));
  const int d = limits.max_head_dim;
  const size_t packed = round_up(std::max(f32_.packed_block_bytes(d), bf16_.packed_block_bytes(d)));
  const size_t q = round_up(std::max(f32_.q_row_bytes(d), bf16_.q_row_bytes(d)) * kMaxTileRows);
  // A narrower model of the same limits may use more rows per tile, never more floats than the larger of the two.
  const size_t state =
      round_up(sizeof(float) * std::max(state_floats(kMaxTileRows, 64), state_floats(kMaxTileRows, d)));
  const size_t rows = round_up(kMaxTileRows * sizeof(int32_t));
  for (Thread& t : threads_) {
    t.memory = AlignedBuffer(packed + q + 2 * state + 2 * rows + kRowScratchBytes);
    std::byte* p = t.memory.data();
    const auto take = [&p](size_t bytes) { return std::exchange(p, p + bytes); };
    t.packed = take(packed);
    t.q = take(q);
    t.rows = take(kRowScratchBytes);
    t.part = reinterpret_cast<float*>(take(state));
    t.total = reinterpret_cast<float*>(take(state));
    t.first = reinterpret_cast<int32_t*>(take(rows));
    t.last = reinterpret_cast<int32_t*>(take(rows));
  }
}

/// A page holds the KV heads one after the other, so a thread that takes them together reads memory in order: 24 GB/s a
/// core against 14 for every second 2 KiB of it (Zen 4, two KV heads of 64). But only where items stay small enough.
int32_t CpuAttention::heads_per_tile(int64_t rows, int64_t positions, int32_t splits, int32_t kv_heads,
                                     double item_cost) const {
  const double largest = cost_of(rows, positions) / splits;  // of one head's items when cut along the context
  const double fit = std::clamp(2 * item_cost / largest, 1.0, static_cast<double>(kv_heads));
  const int32_t heads = static_cast<int32_t>(std::min<int64_t>(static_cast<int64_t>(fit), kMinTileRows / rows));
  const int32_t tiles = (kv_heads + std::max(heads, 1) - 1) / std::max(heads, 1);
  return (kv_heads + tiles - 1) / tiles;
}

void CpuAttention::add_tile(Tile tile, double item_cost) {
  const int64_t rows = tile.row_end - tile.row_begin, heads = tile.head_end - tile.head_begin;
  const int32_t splits = tile.split_end - tile.split_begin;
  const double cost = static_cast<double>(heads) * cost_of(rows, tile.hi - tile.lo + 1);
  const int32_t index = static_cast<int32_t>(tiles_.size());
  // Long and thin: cut along the context. Wide tiles are cut by rows already, and their partial results would be large.
  const int64_t floats = heads * state_floats(rows, limits_.max_head_dim) * splits;
  const bool cut = splits > 1 && cost > 2 * item_cost && rows <= kMinTileRows &&
                   partial_used_ + floats <= static_cast<int64_t>(partials_.size() / sizeof(float)) &&
                   pending_used_ < kItemsPerThread * pool_.num_threads();
  if (!cut) {
    tile.partial = -1;
    items_.push_back({index, tile.split_begin, tile.split_end, static_cast<float>(cost)});
  } else {
    tile.partial = partial_used_;
    partial_used_ += floats;
    tile.counter = pending_used_++;
    const int32_t pieces = tile.pieces = std::min(splits, static_cast<int32_t>(cost / item_cost));
    for (int32_t i = 0; i < pieces; ++i) {
      const int32_t begin = tile.split_begin + splits * i / pieces, end = tile.split_begin + splits * (i + 1) / pieces;
      const int32_t from = std::max(tile.lo, begin * kSplit), to = std::min(tile.hi + 1, end * kSplit);
      items_.push_back({index, begin, end, static_cast<float>(static_cast<double>(heads) * cost_of(rows, to - from))});
    }
  }
  tiles_.push_back(tile);
}

bool CpuAttention::planned(const AttentionArgs& a, const BatchLayout& batch) const {
  return planned_shape_ == std::array{a.num_heads, a.cache.kv_heads, a.cache.head_dim, a.window} &&
         std::equal(planned_kv_lens_.begin(), planned_kv_lens_.end(), batch.kv_lens, batch.kv_lens + batch.num_seqs) &&
         std::equal(planned_query_lens_.begin(), planned_query_lens_.end(), batch.cu_query_lens,
                    batch.cu_query_lens + batch.num_seqs + 1);
}

void CpuAttention::plan(const AttentionArgs& a, const BatchLayout& batch) {
  planned_shape_ = {a.num_heads, a.cache.kv_heads, a.cache.head_dim, a.window};
  planned_kv_lens_.assign(batch.kv_lens, batch.kv_lens + batch.num_seqs);
  planned_query_lens_.assign(batch.cu_query_lens, batch.cu_query_lens + batch.num_seqs + 1);
  tiles_.clear();
  items_.clear();
  partial_used_ = 0;
  pending_used_ = 0;
  const int32_t kv_heads = a.cache.kv_heads, group = a.num_heads / kv_heads;
  // The first position that query token t of a sequence sees.
  const auto first_of = [&](int32_t position) { return a.window > 0 ? std::max(0, position - a.window + 1) : 0; };
  total_cost_ = 0;
  for (int32_t s = 0; s < batch.num_seqs; ++s) {
    const int32_t tokens = batch.cu_query_lens[s + 1] - batch.cu_query_lens[s];
    if (tokens == 0) continue;
    const int32_t begin = batch.kv_lens[s] - tokens;
    const int64_t span = batch.kv_lens[s] - first_of(begin);
    total_cost_ += kv_heads * cost_of(int64_t{tokens} * group, span);
  }
  const double item_cost = std::max(total_cost_ / (kItemsPerThread * pool_.num_threads()), 1.0);
  for (int32_t s = 0; s < batch.num_seqs; ++s) {
    const int32_t tokens = batch.cu_query_lens[s + 1] - batch.cu_query_lens[s];
    if (tokens == 0) continue;
    const int32_t begin = batch.kv_lens[s] - tokens, rows = tokens * group;
    const double span = batch.kv_lens[s] - first_of(begin);
    // Rows per tile: what makes an item of item_cost, within what is efficient.
    const int32_t wanted = static_cast<int32_t>(std::min<double>(item_cost / span, kMaxTileRows)) / 6 * 6;
    const int32_t tile_rows = std::clamp(wanted, kMinTileRows, max_tile_rows(a.cache.head_dim));
    const int32_t pieces = (rows + tile_rows - 1) / tile_rows;
    for (int32_t i = 0; i < pieces; ++i) {
      Tile tile{};
      tile.seq = s;
      tile.row_begin = static_cast<int32_t>(int64_t{rows} * i / pieces);
      tile.row_end = static_cast<int32_t>(int64_t{rows} * (i + 1) / pieces);
      tile.lo = first_of(begin + tile.row_begin / group);
      tile.hi = begin + (tile.row_end - 1) / group;
      tile.split_begin = tile.lo / kSplit;
      tile.split_end = tile.hi / kSplit + 1;
      const int32_t heads = heads_per_tile(tile.row_end - tile.row_begin, tile.hi - tile.lo + 1,
                                           tile.split_end - tile.split_begin, kv_heads, item_cost);
      for (int32_t head = 0; head < kv_heads; head += heads) {
        tile.head_begin = head;
        tile.head_end = std::min(head + heads, kv_heads);
        add_tile(tile, item_cost);
      }
    }
  }
  // Largest first, so that what is left over at the end is small.
  std::sort(items_.begin(), items_.end(), [](const Item& x, const Item& y) { return x.cost > y.cost; });
}

/// Leaves the state of one split: of each KV head in turn, [rows].
void CpuAttention::run_split(const Tile& tile, int32_t split, const AttentionArgs& a, const BatchLayout& batch,
                             const AttentionKernel& kernel, Thread& thread, float* states) {
  const int d = a.cache.head_dim;
  const int32_t rows = tile.row_end - tile.row_begin, page = a.cache.page_size;
  const int32_t heads = tile.head_end - tile.head_begin;
  for (int32_t h = 0; h < heads; ++h) clear(state_at(states + h * state_floats(rows, d), rows, d), rows, d);

  const int64_t row_bytes = static_cast<int64_t>(d * dtype_bytes(a.cache.dtype));
  const int64_t head_bytes = page * row_bytes;
  const int32_t* table = batch.page_table + int64_t{tile.seq} * batch.page_table_stride;
  const auto offset = [&](int32_t position) {  // of a run of the first head, in bytes from the start of K or V
    const int64_t number = table[position / page];
    return ((number * a.cache.kv_heads + tile.head_begin) * page + position % page) * row_bytes;
  };
  BlockRows block{};
  block.packed = thread.packed;
  block.first = thread.first;
  block.last = thread.last;
  block.num_rows = rows;
  block.head_dim = d;
  block.softcap = a.softcap > 0 ? a.softcap * 1.44269504088896341f : 0.0f;
  block.scratch = thread.rows;
  const size_t q_bytes = rows * kernel.q_row_bytes(d);

  const int32_t begin = std::max(tile.lo, split * kSplit), end = std::min(tile.hi + 1, (split + 1) * kSplit);
  const int32_t ahead_end = tile.hi + 1;  // prefetching goes on into the next split
  BlockSource source{};
  for (int32_t start = begin / kBlock * kBlock; start < end; start += kBlock) {
    int64_t here[kRunsPerBlock], there[kRunsPerBlock];
    for (int r = 0; r < kRunsPerBlock; ++r) {
      const int32_t at = start + r * kRun, ahead = at + kBlocksAhead * kBlock;
      here[r] = at < end && at + kRun > begin ? offset(at) : -1;
      there[r] = ahead < ahead_end ? offset(ahead) : -1;
    }
    source.begin = std::max(begin - start, 0);
    source.end = std::min(end - start, kBlock);
    block.start = start;
    for (int32_t h = 0; h < heads; ++h) {
      for (int r = 0; r < kRunsPerBlock; ++r) {
        source.k[r] = here[r] >= 0 ? a.cache.k + here[r] + h * head_bytes : nullptr;
        source.v[r] = here[r] >= 0 ? a.cache.v + here[r] + h * head_bytes : nullptr;
        source.next_k[r] = there[r] >= 0 ? a.cache.k + there[r] + h * head_bytes : nullptr;
        source.next_v[r] = there[r] >= 0 ? a.cache.v + there[r] + h * head_bytes : nullptr;
      }
      block.q = thread.q + h * q_bytes;
      block.state = state_at(states + h * state_floats(rows, d), rows, d);
      kernel.run(source, block);
    }
  }
}

/// The kernels prefetch as they go, kBlocksAhead ahead: an item's first blocks nobody has asked for yet.
void CpuAttention::prefetch_start(const Tile& tile, int32_t split, const AttentionArgs& a, const BatchLayout& batch) {
  const int32_t page = a.cache.page_size, begin = std::max(tile.lo, split * kSplit) / page * page;
  const int32_t end = std::min(tile.hi + 1, begin + kBlocksAhead * kBlock);
  const int64_t head_bytes = static_cast<int64_t>(page * a.cache.head_dim * dtype_bytes(a.cache.dtype));
  const int32_t* table = batch.page_table + int64_t{tile.seq} * batch.page_table_stride;
  for (int32_t position = begin; position < end; position += page) {
    const int64_t from = (int64_t{table[position / page]} * a.cache.kv_heads + tile.head_begin) * head_bytes;
    for (int64_t i = 0; i < (tile.head_end - tile.head_begin) * head_bytes; i += 64) {
      __builtin_prefetch(a.cache.k + from + i, 0, 2);
      __builtin_prefetch(a.cache.v + from + i, 0, 2);
    }
  }
}

void CpuAttention::write_out(const Tile& tile, float* totals, const AttentionArgs& a, const BatchLayout& batch,
                             const AttentionKernel& kernel) {
  const int32_t d = a.cache.head_dim, group = a.num_heads / a.cache.kv_heads, rows = tile.row_end - tile.row_begin;
  for (int32_t h = tile.head_begin; h < tile.head_end; ++h) {
    const RowState total = state_at(totals + (h - tile.head_begin) * state_floats(rows, d), rows, d);
    for (int32_t i = 0; i < rows; ++i) {
      const int32_t row = tile.row_begin + i;
      const int64_t token = batch.cu_query_lens[tile.seq] + row / group;
      const int64_t head = int64_t{h} * group + row % group;
      kernel.finish(total.acc + int64_t{i} * padded_dim(d), total.sum[i * kSumLanes], d,
                    a.out + token * a.out_stride + head * d);
    }
  }
}

void CpuAttention::run_item(const Item& item, const AttentionArgs& a, const BatchLayout& batch,
                            const AttentionKernel& kernel, Thread& thread) {
  const Tile& tile = tiles_[item.tile];
  const int32_t d = a.cache.head_dim, group = a.num_heads / a.cache.kv_heads, rows = tile.row_end - tile.row_begin;
  const int32_t heads = tile.head_end - tile.head_begin;
  const int32_t first_token = batch.cu_query_lens[tile.seq];
  const int32_t first_position = batch.kv_lens[tile.seq] - (batch.cu_query_lens[tile.seq + 1] - first_token);
  prefetch_start(tile, item.split_begin, a, batch);
  // Scores come out in units of log2, or, before the soft cap, of the cap.
  const float factor = a.softcap > 0 ? a.scale / a.softcap : a.scale * 1.44269504088896341f;
  const size_t q_bytes = kernel.q_row_bytes(d);
  for (int32_t i = 0; i < rows; ++i) {
    const int32_t token = (tile.row_begin + i) / group, member = (tile.row_begin + i) % group;
    const float* q = a.q + int64_t{first_token + token} * a.q_stride;
    for (int32_t h = 0; h < heads; ++h)
      kernel.load_q(q + (int64_t{tile.head_begin + h} * group + member) * d, d, factor,
                    thread.q + (int64_t{h} * rows + i) * q_bytes);
    thread.last[i] = first_position + token;
    thread.first[i] = a.window > 0 ? std::max(0, thread.last[i] - a.window + 1) : 0;
  }

  // States lie head by head.
  const auto clear_total = [&] {
    for (int32_t h = 0; h < heads; ++h) clear(state_at(thread.total + h * state_floats(rows, d), rows, d), rows, d);
  };
  const auto fold = [&](float* part) {
    for (int32_t h = 0; h < heads; ++h) {
      const int64_t at = h * state_floats(rows, d);
      kernel.fold(state_at(thread.total + at, rows, d), state_at(part + at, rows, d), rows, d);
    }
  };
  if (tile.partial < 0) {
    clear_total();
    for (int32_t split = item.split_begin; split < item.split_end; ++split) {
      run_split(tile, split, a, batch, kernel, thread, thread.part);
      fold(thread.part);
    }
    write_out(tile, thread.total, a, batch, kernel);
    return;
  }
  const auto partial = [&](int32_t split) {
    return partials_.as<float>() + tile.partial +
           (split - tile.split_begin) * heads * state_floats(rows, limits_.max_head_dim);
  };
  for (int32_t split = item.split_begin; split < item.split_end; ++split)
    run_split(tile, split, a, batch, kernel, thread, partial(split));
  if (pending_[tile.counter].fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  clear_total();
  for (int32_t split = tile.split_begin; split < tile.split_end; ++split) fold(partial(split));
  write_out(tile, thread.total, a, batch, kernel);
}

void CpuAttention::run(const AttentionArgs& a, const BatchLayout& batch) {
  TS_CHECK(a.cache.page_size % kRun == 0, "attention reads runs of 16 positions");
  TS_CHECK(a.cache.head_dim <= limits_.max_head_dim, "reserve() was not called with this head_dim");
  if (!planned(a, batch)) plan(a, batch);
  for (const Tile& tile : tiles_)
    if (tile.partial >= 0) pending_[tile.counter].store(tile.pieces, std::memory_order_relaxed);
  const AttentionKernel& kernel = a.cache.dtype == DType::kF32 ? f32_ : bf16_;
  next_item_.store(0, std::memory_order_relaxed);
  const auto work = [&](int index) {
    for (;;) {
      const int32_t i = next_item_.fetch_add(1, std::memory_order_relaxed);
      if (i >= static_cast<int32_t>(items_.size())) return;
      run_item(items_[i], a, batch, kernel, threads_[index]);
    }
  };
  if (items_.size() <= 1 || total_cost_ < kInlineCost)
    work(0);
  else
    pool_.run(work);
}

}  // namespace tinyserve::ops::cpu
