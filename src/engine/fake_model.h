#pragma once
// For tests: a model whose logits are a function of all tokens so far, read back from the KV pages through the page
// table. Whatever goes wrong with pages (a wrong one, one overwritten, a copy not made) changes the logits or fails a
// check.

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/check.h"
#include "engine/engine.h"
#include "engine/text_stream.h"
#include "engine/token_selection.h"

namespace tinyserve::testing {

inline uint64_t mix(uint64_t x) {
  x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27, x *= 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

/// Logits of the token after `tokens`: pseudo-random in (-4, 4).
inline void hash_logits(std::span<const int32_t> tokens, std::span<float> logits) {
  uint64_t h = 1;
  for (int32_t token : tokens) h = mix(h + 0x9E3779B97F4A7C15u * static_cast<uint64_t>(token + 1));
  for (size_t v = 0; v < logits.size(); ++v) logits[v] = static_cast<float>(mix(h ^ (v + 1)) >> 40) * 0x1p-24f * 8 - 4;
}

using LogitRule = std::function<void(std::span<const int32_t>, std::span<float>)>;

class FakeModel final : public Model {
 public:
  explicit FakeModel(int32_t vocab = 61, int32_t max_positions = 512, LogitRule rule = hash_logits)
      : rule_(std::move(rule)) {
    config_.family = "fake";
    config_.vocab_size = vocab;
    config_.max_positions = max_positions;
  }
  void set_eos(std::vector<int32_t> ids) { config_.eos_token_ids = std::move(ids); }
  /// Called at the start of each forward; may throw.
  std::function<void(const Step&)> on_forward;

  const ModelConfig& config() const override { return config_; }
  KvShape kv_shape() const override { return {.num_layers = 2, .kv_heads = 1, .head_dim = 2, .dtype = DType::kF32}; }
  size_t weight_bytes() const override { return 0; }
  void reserve(int64_t tokens, int64_t rows, int64_t seqs, int64_t context) override {
    max_tokens_ = tokens, max_rows_ = rows, max_seqs_ = seqs, max_context_ = context;
  }

  void forward(const Step& step, std::span<const ops::KvLayer> cache, float* logits) override {
    if (on_forward) on_forward(step);
    const ops::BatchLayout& b = step.layout;
    if (step.selector)
      step.selector->begin_step(b.num_seqs, step.selections);  // its attention sees everything all the same
    TS_CHECK(b.num_tokens == static_cast<int32_t>(step.token_ids.size()) && b.num_tokens <= max_tokens_);
    TS_CHECK(b.num_seqs <= max_seqs_ && static_cast<int64_t>(step.logit_rows.size()) <= max_rows_);
    TS_CHECK(b.cu_query_lens[0] == 0 && b.cu_query_lens[b.num_seqs] == b.num_tokens);
    size_t next_row = 0;
    for (int32_t s = 0; s < b.num_seqs; ++s) {  // all appends first, as the real thing does layer by layer
      for (int32_t t = b.cu_query_lens[s]; t < b.cu_query_lens[s + 1]; ++t) append(b, s, t, step.token_ids[t], cache);
    }
    for (int32_t s = 0; s < b.num_seqs; ++s) {
      TS_CHECK(b.kv_lens[s] <= max_context_ && b.cu_query_lens[s] < b.cu_query_lens[s + 1]);
      const std::vector<int32_t> tokens = read_back(b, s, cache);
      for (; next_row < step.logit_rows.size() && step.logit_rows[next_row] < b.cu_query_lens[s + 1]; ++next_row) {
        const int32_t t = step.logit_rows[next_row];
        TS_CHECK(t >= b.cu_query_lens[s] && (next_row == 0 || step.logit_rows[next_row - 1] < t));
        rule_(std::span(tokens).first(b.positions[t] + 1),
              std::span(logits + next_row * config_.vocab_size, config_.vocab_size));
      }
    }
    TS_CHECK(next_row == step.logit_rows.size());
    ++num_forwards;
    num_rows += b.num_tokens;
  }

  int64_t num_forwards = 0;
  int64_t num_rows = 0;

 private:
  static float* cell(std::byte* base, const ops::KvLayer& layer, int64_t slot) {
    const int64_t page = slot / layer.page_size, offset = slot % layer.page_size;
    return reinterpret_cast<float*>(base) + page * layer.page_elements() + offset * layer.head_dim;
  }
  void append(const ops::BatchLayout& b, int32_t s, int32_t t, int32_t token, std::span<const ops::KvLayer> cache) {
    const int32_t position = b.positions[t], page_size = cache[0].page_size;
    TS_CHECK(position == b.kv_lens[s] - (b.cu_query_lens[s + 1] - t));
    const int32_t page = b.page_table[int64_t{s} * b.page_table_stride + position / page_size];
    TS_CHECK(b.slots[t] == int64_t{page} * page_size + position % page_size);
    for (size_t l = 0; l < cache.size(); ++l) {
      float* k = cell(cache[l].k, cache[l], b.slots[t]);
      float* v = cell(cache[l].v, cache[l], b.slots[t]);
      k[0] = static_cast<float>(token), k[1] = static_cast<float>(position);
      v[0] = static_cast<float>(token + 1), v[1] = static_cast<float>(l);
    }
  }
  std::vector<int32_t> read_back(const ops::BatchLayout& b, int32_t s, std::span<const ops::KvLayer> cache) const {
    const int32_t page_size = cache[0].page_size;
    std::vector<int32_t> tokens;
    for (int32_t position = 0; position < b.kv_lens[s]; ++position) {
      const int32_t page = b.page_table[int64_t{s} * b.page_table_stride + position / page_size];
      TS_CHECK(page >= 0 && page < cache[0].num_pages);
      const int64_t slot = int64_t{page} * page_size + position % page_size;
      tokens.push_back(static_cast<int32_t>(cell(cache[0].k, cache[0], slot)[0]));
      for (size_t l = 0; l < cache.size(); ++l) {
        const float* k = cell(cache[l].k, cache[l], slot);
        const float* v = cell(cache[l].v, cache[l], slot);
        TS_CHECK(k[0] == tokens.back() && k[1] == position, "the page table leads to another position's K");
        TS_CHECK(v[0] == tokens.back() + 1 && v[1] == l, "the page table leads to another position's V");
      }
    }
    return tokens;
  }

  LogitRule rule_;
  ModelConfig config_;
  int64_t max_tokens_ = 0, max_rows_ = 0, max_seqs_ = 0, max_context_ = 0;
};

/// What greedy decoding must give, computed without an engine.
inline std::vector<int32_t> greedy_oracle(std::vector<int32_t> tokens, int32_t count, int32_t vocab,
                                          const LogitRule& rule = hash_logits) {
  std::vector<int32_t> answer;
  std::vector<float> logits(vocab);
  for (int32_t i = 0; i < count; ++i) {
    rule(tokens, logits);
    answer.push_back(argmax(logits.data(), vocab).id);
    tokens.push_back(answer.back());
  }
  return answer;
}

/// Token id -> text; ids not in the map are "<id>".
class FakeTexts final : public TokenText {
 public:
  std::map<int32_t, std::string> texts;
  std::vector<int32_t> special;
  std::string token_bytes(int32_t id) const override {
    const auto at = texts.find(id);
    if (at != texts.end()) return at->second;
    std::string text = "<";
    text += std::to_string(id);
    return text += ">";
  }
  bool is_special(int32_t id) const override { return std::find(special.begin(), special.end(), id) != special.end(); }
};

/// Everything one request gave, put together and checked as it comes.
struct Collected {
  struct Choice {
    std::vector<int32_t> tokens;
    std::string text;
    std::vector<TokenLogprob> logprobs;
    FinishReason finish = FinishReason::kNone;
    std::variant<std::monostate, std::string, int32_t> stop_reason;
    std::string error;
    int outputs = 0;
  };
  std::map<int32_t, Choice> choices;
  std::vector<TokenLogprob> prompt_logprobs;
  int32_t prompt_tokens = 0, cached_prompt_tokens = 0;
  int outputs = 0;
  bool done = false;
  SelectionAccount selection;

  OutputSink sink() {
    return [this](Output&& o) {
      TS_CHECK(!done, "an output after the last");
      TS_CHECK(o.first == (outputs++ == 0));
      if (o.first) {
        prompt_tokens = o.prompt_tokens, cached_prompt_tokens = o.cached_prompt_tokens;
        prompt_logprobs = std::move(o.prompt_logprobs);
      }
      Choice& c = choices[o.index];
      TS_CHECK(c.finish == FinishReason::kNone, "an output after the choice's last");
      ++c.outputs;
      c.tokens.insert(c.tokens.end(), o.token_ids.begin(), o.token_ids.end());
      c.text += o.text;
      for (auto& l : o.logprobs) c.logprobs.push_back(std::move(l));
      c.finish = o.finish;
      c.stop_reason = o.stop_reason;
      c.error = o.error;
      done = o.request_done;
      if (done) selection = o.selection;
    };
  }
};

}  // namespace tinyserve::testing
