#include "model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace tinyserve {

Decoder::Decoder(const LoadContext& context, const ModelConfig& config, const Widths& widths)
    : ops_(context.ops), config_(config), checkpoint_(context.folder), dtype_(context.options.dtype), widths_(widths) {}

void Decoder::finish_loading(WeightLoader& weights) {
  weights.finish();
  weight_bytes_ = weights.packed_bytes();
  block_bytes_ = weights.block_bytes();
  config_.num_parameters = weights.num_parameters();
}

KvShape Decoder::kv_shape() const {
  return {.num_layers = config_.num_layers,
          .kv_heads = config_.num_kv_heads,
          .head_dim = config_.head_dim,
          .dtype = dtype_};
}

void Decoder::reserve(int64_t max_tokens, int64_t max_logit_rows, int64_t max_seqs, int64_t max_context) {
  TS_CHECK(max_tokens > 0 && max_logit_rows > 0 && max_seqs > 0 && max_context > 0, "a step needs room");
  if (max_context > config_.max_positions)
    throw InputError(fmt::format("a context of {} tokens was asked for, but the model has only {} positions",
                                 max_context, config_.max_positions));
  max_tokens_ = max_tokens;
  max_logit_rows_ = max_logit_rows;
  max_seqs_ = max_seqs;
  max_context_ = max_context;
  rows_.reserve(max_tokens, max_seqs);
  split_.reserve(max_tokens, max_seqs);
  full_pages_.reserve(static_cast<size_t>(max_tokens));

  // Each matrix begins on a cache line.
  const auto floats_of = [](int64_t rows, int64_t width) { return (rows * width + 15) / 16 * 16; };
  const int64_t stream = floats_of(max_tokens, config_.hidden_size);
  const int64_t qkv = floats_of(max_tokens, qkv_width()), attended = floats_of(max_tokens, q_width());
  const int64_t gathered = floats_of(std::min(max_tokens, max_logit_rows), qkv_width());
  const int64_t up = floats_of(max_tokens, widths_.up), gated = floats_of(max_tokens, widths_.gated);
  const int64_t floats = 2 * stream + std::max(qkv + attended + gathered, up + gated);
  activations_ = ops_.allocate(static_cast<size_t>(floats) * sizeof(float));
  x_ = activations_->as<float>();
  h_ = x_ + stream;
  qkv_ = up_ = h_ + stream;
  all_attended_ = qkv_ + qkv;
  gathered_ = all_attended_ + attended;
  gated_ = up_ + up;
  gather_table_ = {.dtype = DType::kF32, .shape = {0, 0}};

  ops_.reserve({.max_tokens = max_tokens,
                .max_seqs = max_seqs,
                .max_context = max_context,
                .max_width = std::max({int64_t{config_.vocab_size}, int64_t{config_.hidden_size}, qkv_width(),
                                       widths_.up, widths_.gated}),
                .max_heads = config_.num_heads,
                .max_head_dim = config_.head_dim});
}

void Decoder::begin(const Step& step, std::span<const ops::KvLayer> cache) {
  const ops::BatchLayout& layout = step.layout;
  TS_CHECK(static_cast<int64_t>(step.token_ids.size()) == layout.num_tokens, "one token id per row");
  TS_CHECK(layout.num_tokens <= max_tokens_ && layout.num_seqs <= max_seqs_,
           "the step is larger than reserve() was told");
  TS_CHECK(static_cast<int64_t>(step.logit_rows.size()) <= max_logit_rows_, "more logits than reserve() was told");
  TS_CHECK(cache.size() == static_cast<size_t>(config_.num_layers), "one KvLayer per layer");
  for (const int32_t id : step.token_ids)
    TS_CHECK(id >= 0 && id < config_.vocab_size, "token id outside the vocabulary");
  for (int32_t t = 0; t < layout.num_tokens; ++t)
    TS_CHECK(layout.positions[t] >= 0 && layout.positions[t] < max_context_, "position outside the context");
  rows_.begin(step);
  layout_ = ops_.begin_step(layout);
  layer_ = 0;
  selector_ = step.selector;
  selections_ = step.selections;
  split_.clear();
  if (!selector_) return;
  selector_->begin_step(layout.num_seqs, selections_);
  find_full_pages(layout, cache[0].page_size);
  TS_CHECK(selections_.empty() || selections_.size() == static_cast<size_t>(layout.num_seqs), "a selection for each sequence");
  if (!selections_.empty()) split_.split(layout, selections_);
}

// A page is full when its last slot is.
void Decoder::find_full_pages(const ops::BatchLayout& layout, int32_t page_size) {
  full_pages_.clear();
  for (int32_t t = 0; t < layout.num_tokens; ++t)
    if (layout.slots[t] % page_size == page_size - 1) full_pages_.push_back(static_cast<int32_t>(layout.slots[t] / page_size));
}

void Decoder::linear(const Linear& w, const float* x, float* y, bool accumulate) {
  ops_.linear({.x = x,
               .x_stride = w.weight->in_features,
               .rows = rows(),
               .weight = w.weight.get(),
               .bias = w.bias.data(),
               .y = y,
               .y_stride = w.weight->out_features,
               .accumulate = accumulate});
}

void Decoder::rms_norm(const Norm& norm, float eps, const float* x, float* y) {
  const int64_t width = config_.hidden_size;
  ops_.rms_norm(x, width, rows(), width, norm.weight.data(), eps, y, width);
}

void Decoder::layer_norm(const Norm& norm, float eps, const float* x, float* y) {
  const int64_t width = config_.hidden_size;
  ops_.layer_norm(x, width, rows(), width, norm.weight.data(), norm.bias.data(), eps, y, width);
}

void Decoder::self_attention(const AttentionWeights& w, const float* x, const ops::KvLayer& cache, bool last_layer,
                             const RopeTable* rope) {
  linear(w.qkv, x, qkv_);
  ops_.append_kv({.qkv = qkv_,
                  .qkv_stride = qkv_width(),
                  .num_heads = config_.num_heads,
                  .q_norm = w.q_norm.data(),
                  .k_norm = w.k_norm.data(),
                  .norm_eps = w.norm_eps,
                  .cos = rope ? rope->cos() : nullptr,
                  .sin = rope ? rope->sin() : nullptr,
                  .rotary_dim = rope ? config_.head_dim : 0,
                  .cache = cache},
                 layout_);
  if (selector_)
    selector_->appended({.layer = layer_,
                         .qkv = qkv_,
                         .qkv_stride = qkv_width(),
                         .rows = rows(),
                         .cache = &cache,
                         .full_pages = full_pages_});
  attended_ = all_attended_;
  if (!last_layer || rows_.all_wanted()) {
    attend(w, cache, qkv_);
    ++layer_;
    return;
  }
  if (rows_.wanted().empty()) {
    rows_.keep_wanted();
    return;
  }
  if (rows_.wanted_rows_end_sequences()) {
    gather_wanted(qkv_, qkv_width(), gathered_);
    const ops::BatchLayout wanted = rows_.wanted_layout();
    layout_ = ops_.begin_step(wanted);
    if (split_.any_sparse()) split_.split(wanted, selections_);
    attend(w, cache, gathered_);
  } else {
    attend(w, cache, qkv_);
    gather_wanted(attended_, q_width(), gathered_);
    attended_ = gathered_;
  }
  gather_wanted(x_, config_.hidden_size, h_);
  std::swap(x_, h_);
  rows_.keep_wanted();
}

void Decoder::attend(const AttentionWeights& w, const ops::KvLayer& cache, const float* q) {
  const ops::AttentionArgs args{.q = q,
                                .q_stride = qkv_width(),
                                .num_heads = config_.num_heads,
                                .scale = w.scale,
                                .window = w.window,
                                .softcap = w.softcap,
                                .cache = cache,
                                .out = attended_,
                                .out_stride = q_width()};
  if (!split_.any_sparse() || !selectable_[static_cast<size_t>(layer_)]) {
    ops_.attention(args, layout_);
    return;
  }
  for (const RowSplit::Run& run : split_.runs()) {
    ops::AttentionArgs part = args;
    part.q += run.first_row * args.q_stride;
    part.out += run.first_row * args.out_stride;
    ops_.attention(part, run.layout);
  }
  selector_->attend(layer_, args, layout_, split_.rows());
}

// Looking rows up in a table is what embed() does, whatever the table holds.
void Decoder::gather_wanted(const float* from, int64_t width, float* to) {
  gather_table_.data = reinterpret_cast<const std::byte*>(from);
  gather_table_.shape[0] = rows_.count();
  gather_table_.shape[1] = width;
  ops_.embed(gather_table_, rows_.wanted(), 1.0f, false, to, width);
}

}  // namespace tinyserve
