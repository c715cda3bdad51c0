#include "eval/sequence_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "engine/row_scans.h"

namespace tinyserve::eval {
namespace {

constexpr int32_t kStepTokens = 512;
constexpr int64_t kLogitBytes = int64_t{128} << 20;  // a vocabulary of 150,000 makes 512 rows of logits 300 MB

int32_t rows_of(const Model& model) {
  return static_cast<int32_t>(std::clamp<int64_t>(kLogitBytes / (int64_t{4} * model.config().vocab_size), 1, kStepTokens));
}

int32_t checked(const Model& model, int32_t max_context) {
  const int32_t limit = model.config().max_positions;
  if (max_context > limit)
    throw InputError(fmt::format("a context of {} tokens is too long: the model was made for {}", max_context, limit));
  TS_CHECK(max_context > 0, "a sequence has tokens");
  return max_context;
}

}  // namespace

Prediction predict(const float* logits, int32_t vocab_size, int32_t next) {
  const float max = row_scans::max_or_nan(logits, vocab_size);
  if (!std::isfinite(max)) return {.loss = std::numeric_limits<float>::quiet_NaN()};
  std::vector<double> sums(static_cast<size_t>((vocab_size + row_scans::kBlock - 1) / row_scans::kBlock));
  row_scans::exp_weights(logits, vocab_size, max, 1.0f, nullptr, sums.data());
  const double log_sum = std::log(std::accumulate(sums.begin(), sums.end(), 0.0));
  const float own = logits[next];
  return {.loss = static_cast<float>(log_sum + max - own),
          .correct = own == max && std::find(logits, logits + next, max) == logits + next};
}

SequenceRunner::SequenceRunner(Model& model, ops::Ops& ops, ThreadPool& pool, int32_t max_context, const CodeShape& codes)
    : model_(model),
      ops_(ops),
      pool_(pool),
      max_context_(checked(model, max_context)),
      step_rows_(rows_of(model)),
      storage_(ops, model.kv_shape(), kPageSize, (max_context + kPageSize - 1) / kPageSize, codes),
      page_table_(static_cast<size_t>((max_context + kPageSize - 1) / kPageSize)),
      logits_(ops.allocate(sizeof(float) * static_cast<size_t>(model.config().vocab_size) * static_cast<size_t>(step_rows_))) {
  std::iota(page_table_.begin(), page_table_.end(), 0);
  if (!ops.on_host()) host_logits_.resize(logits_->size / sizeof(float));
  model.reserve(kStepTokens, step_rows_, 1, max_context);
}

void SequenceRunner::select(Selector* selector, const SequenceSelection& selection) {
  selector_ = selector;
  selection_ = selection;
  account_ = {};
}

void SequenceRunner::prefill(std::span<const int32_t> tokens, int32_t begin, int32_t end) {
  for (; begin < end; begin += kStepTokens) run(tokens, begin, std::min(end, begin + kStepTokens), false);
}

std::vector<Prediction> SequenceRunner::prefill_and_score(std::span<const int32_t> tokens, int32_t begin, int32_t end) {
  std::vector<Prediction> out;
  for (; begin < end; begin += step_rows_) {
    const int32_t stop = std::min(end, begin + step_rows_);
    run(tokens, begin, stop, true);
    score(tokens, begin, stop, out);
  }
  return out;
}

std::vector<Prediction> SequenceRunner::decode_and_score(std::span<const int32_t> tokens, int32_t begin, int32_t end) {
  std::vector<Prediction> out;
  for (; begin < end; ++begin) {
    run(tokens, begin, begin + 1, true, true);
    score(tokens, begin, begin + 1, out);
  }
  return out;
}

void SequenceRunner::run(std::span<const int32_t> tokens, int32_t begin, int32_t end, bool logits, bool decodes) {
  const int32_t count = end - begin;
  TS_CHECK(begin >= 0 && count > 0 && end <= max_context_ && end <= static_cast<int32_t>(tokens.size()), "a step within the sequence");
  for (int32_t p = begin; p < end; ++p)
    if (tokens[p] < 0 || tokens[p] >= model_.config().vocab_size)
      throw InputError(fmt::format("the text has token {}, but the model has {}: the tokenizer is not this model's", tokens[p], model_.config().vocab_size));
  positions_.resize(static_cast<size_t>(count)), slots_.resize(static_cast<size_t>(count));
  std::iota(positions_.begin(), positions_.end(), begin);
  std::iota(slots_.begin(), slots_.end(), int64_t{begin});  // page i of the sequence is page i of the storage
  logit_rows_.resize(logits ? static_cast<size_t>(count) : 0);
  std::iota(logit_rows_.begin(), logit_rows_.end(), 0);
  const int32_t cu_query_lens[] = {0, count};
  Step step{.token_ids = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), .logit_rows = logit_rows_};
  step.layout = {.num_seqs = 1,
                 .num_tokens = count,
                 .cu_query_lens = cu_query_lens,
                 .kv_lens = &end,
                 .page_table = page_table_.data(),
                 .page_table_stride = static_cast<int32_t>(page_table_.size()),
                 .positions = positions_.data(),
                 .slots = slots_.data()};
  step.selector = selector_;
  if (selector_ && decodes) step.selections = {&selection_, 1};
  model_.forward(step, storage_.layers(), logits_->as<float>());
  if (logits && !ops_.on_host())
    ops_.download(host_logits_.data(), logits_->data, sizeof(float) * static_cast<size_t>(count) * static_cast<size_t>(model_.config().vocab_size));
  if (selector_ && decodes) account_.add(selector_->accounts()[0]);
  if (on_step) on_step(count);
}

void SequenceRunner::score(std::span<const int32_t> tokens, int32_t begin, int32_t end, std::vector<Prediction>& out) {
  TS_CHECK(end < static_cast<int32_t>(tokens.size()), "a prediction is about a token that is there");
  const int32_t vocab = model_.config().vocab_size;
  if (tokens[end] < 0 || tokens[end] >= vocab)
    throw InputError(fmt::format("the text has token {}, but the model has {}: the tokenizer is not this model's", tokens[end], vocab));
  const float* logits = ops_.on_host() ? logits_->as<float>() : host_logits_.data();
  const size_t before = out.size();
  out.resize(before + static_cast<size_t>(end - begin));
  pool_.parallel_for(end - begin, 1, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) out[before + static_cast<size_t>(r)] = predict(logits + r * vocab, vocab, tokens[begin + r + 1]);
  });
  for (int32_t r = 0; on_logits && r < end - begin; ++r)
    on_logits({logits + int64_t{r} * vocab, static_cast<size_t>(vocab)});
  for (size_t i = before; i < out.size(); ++i)
    if (std::isnan(out[i].loss)) throw InputError("the model computed logits that are no numbers: its weights are broken");
}

}  // namespace tinyserve::eval
