#include "cli/step_driver.h"

#include <algorithm>
#include <numeric>

namespace tinyserve::cli {

StepDriver::StepDriver(Model& model, ops::Ops& ops, int32_t max_seqs, int32_t max_context, int32_t max_step_tokens,
                       const SelectionConfig& selection, const SelectionMaps* maps)
    : model_(model),
      ops_(ops),
      pages_per_seq_((max_context + kPageSize - 1) / kPageSize),
      max_seqs_(max_seqs),
      max_step_tokens_(std::max(max_step_tokens, max_seqs)),
      storage_(ops, model.kv_shape(), kPageSize, pages_per_seq_ * max_seqs,
               maps ? CodeShape{.layers = maps->coded_layers(), .values = selection.value_codes} : CodeShape{}),
      selection_(selection),
      selector_(make_selector({.ops = ops, .config = selection, .maps = maps})),
      page_table_(static_cast<size_t>(pages_per_seq_) * max_seqs),
      logits_(ops.allocate(sizeof(float) * static_cast<size_t>(model.config().vocab_size) * max_seqs)) {
  std::iota(page_table_.begin(), page_table_.end(), 0);
  if (!ops.on_host()) host_logits_.resize(static_cast<size_t>(model.config().vocab_size) * max_seqs);
  model.reserve(max_step_tokens_, max_seqs, max_seqs, max_context);
}

void StepDriver::prefill(int32_t seq, int32_t context, int32_t count) {
  for (int32_t done = 0; done < count;) {
    const int32_t n = std::min(count - done, max_step_tokens_);
    run(1, seq, context + done, n, done + n == count);
    done += n;
  }
}

void StepDriver::decode(int32_t num_seqs, int32_t context) { run(num_seqs, 0, context, 1, true, true); }

void StepDriver::fill_by_copy(int32_t prompt) {
  prompt = std::min(prompt, pages_per_seq_ * kPageSize);
  prefill(0, 0, prompt);
  const int32_t sources = (prompt + kPageSize - 1) / kPageSize;
  std::vector<std::pair<int32_t, int32_t>> pairs;
  for (int32_t page = sources; page < pages_per_seq_ * max_seqs_; ++page) pairs.emplace_back(page % sources, page);
  storage_.copy_pages(pairs);
}

void StepDriver::run(int32_t num_seqs, int32_t first_seq, int32_t context, int32_t query_len, bool logits, bool decodes) {
  const int32_t tokens = num_seqs * query_len;
  const auto vocab = static_cast<size_t>(model_.config().vocab_size);
  std::uniform_int_distribution<int32_t> any_token(0, model_.config().vocab_size - 1);
  token_ids_.clear(), positions_.clear(), slots_.clear(), logit_rows_.clear();
  cu_query_lens_.assign(1, 0);
  kv_lens_.assign(static_cast<size_t>(num_seqs), context + query_len);
  for (int32_t s = 0; s < num_seqs; ++s) {
    const int64_t first_page = int64_t{pages_per_seq_} * (first_seq + s);
    for (int32_t position = context; position < context + query_len; ++position) {
      token_ids_.push_back(any_token(random_));
      positions_.push_back(position);
      slots_.push_back((first_page + position / kPageSize) * kPageSize + position % kPageSize);
    }
    cu_query_lens_.push_back((s + 1) * query_len);
    if (logits) logit_rows_.push_back((s + 1) * query_len - 1);
  }
  Step step;
  step.token_ids = token_ids_;
  step.logit_rows = logit_rows_;
  step.layout.num_seqs = num_seqs;
  step.layout.num_tokens = tokens;
  step.layout.cu_query_lens = cu_query_lens_.data();
  step.layout.kv_lens = kv_lens_.data();
  step.layout.page_table = page_table_.data() + int64_t{pages_per_seq_} * first_seq;
  step.layout.page_table_stride = pages_per_seq_;
  step.layout.positions = positions_.data();
  step.layout.slots = slots_.data();
  step.selector = selector_.get();
  selections_.assign(static_cast<size_t>(num_seqs), selection_of(terms_of(selection_), 0));
  audits_.resize(static_cast<size_t>(num_seqs));
  if (terms_of(selection_).audit)
    for (size_t s = 0; s < selections_.size(); ++s) selections_[s].audit = &(audits_[s] = Audit(s));
  if (selector_ && decodes) step.selections = selections_;
  model_.forward(step, storage_.layers(), logits_->as<float>());
  if (selector_ && decodes)
    for (const SelectionAccount& read : selector_->accounts()) account_.add(read);
  // As the engine does before it picks tokens; on such a backend this is also what waits for the step to end.
  if (!ops_.on_host()) ops_.download(host_logits_.data(), logits_->data, logit_rows_.size() * vocab * sizeof(float));
}

}  // namespace tinyserve::cli
