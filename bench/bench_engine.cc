// What the engine itself costs: steps over a model that computes nothing. Scheduling, page tables, sampling, text and
// outputs remain. Microseconds a step, best of several runs, and heap allocations a step.
//   bench_engine [vocabulary]

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/engine_state.h"
#include "engine/text_stream.h"

static std::atomic<int64_t> g_allocations{0};
void* operator new(std::size_t size) {
  ++g_allocations;
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace tinyserve {
namespace {

/// Gives the same random logits for every row, written once.
class IdleModel final : public Model {
 public:
  explicit IdleModel(int32_t vocab) {
    config_.vocab_size = vocab;
    config_.max_positions = 32768;
  }
  const ModelConfig& config() const override { return config_; }
  KvShape kv_shape() const override { return {.num_layers = 1, .kv_heads = 1, .head_dim = 8, .dtype = DType::kBF16}; }
  size_t weight_bytes() const override { return 0; }
  void reserve(int64_t, int64_t, int64_t, int64_t) override {}
  void forward(const Step& step, std::span<const ops::KvLayer>, float* logits) override {
    const size_t have = rows_ * config_.vocab_size, want = step.logit_rows.size() * config_.vocab_size;
    for (size_t i = have; i < want; ++i) logits[i] = normal_(random_);
    rows_ = std::max(rows_, step.logit_rows.size());
  }

 private:
  ModelConfig config_;
  size_t rows_ = 0;
  std::mt19937 random_{1};
  std::normal_distribution<float> normal_{0, 3};
};

struct Texts final : TokenText {
  std::string token_bytes(int32_t id) const override { return std::string(1 + id % 6, 'a'); }
  bool is_special(int32_t) const override { return false; }
};

void measure(int32_t vocab, int32_t batch, int32_t context, const char* name, const SamplingParams& sampling) {
  ThreadPool pool(1);
  auto ops = ops::make_ops("ref", pool);
  IdleModel model(vocab);
  Texts texts;
  EngineConfig config;
  config.num_pages = 16384;
  Engine engine(model, *ops, texts, config, nullptr);
  int64_t tokens = 0;
  for (int32_t i = 0; i < batch; ++i) {
    Request r{std::vector<int32_t>(context, i), sampling};
    r.sampling.max_tokens = 2000;
    r.sampling.ignore_eos = true;
    engine.add(i, r, [&](Output&& o) { tokens += o.token_ids.size(); });
  }
  while (tokens < batch * 20) engine.step();
  double best = 1e9, allocations = 0;
  for (int round = 0; round < 15; ++round) {
    constexpr int kSteps = 64;
    const int64_t before = g_allocations;
    const double begin = now_seconds();
    for (int i = 0; i < kSteps; ++i) engine.step();
    best = std::min(best, (now_seconds() - begin) / kSteps);
    allocations = static_cast<double>(g_allocations - before) / kSteps;
  }
  std::printf("%-24s %7d %6d %8d %10.1f %12.1f\n", name, vocab, batch, context, best * 1e6, allocations);
}

}  // namespace
}  // namespace tinyserve

int main(int argc, char** argv) {
  using tinyserve::SamplingParams;
  const int vocab = argc > 1 ? std::atoi(argv[1]) : 8192;
  if (vocab < 64) {
    std::fprintf(stderr, "bench_engine [vocabulary >= 64]\n");
    return 1;
  }
  SamplingParams greedy, plain, top, penalised;
  greedy.temperature = 0;
  top.top_p = 0.95f, top.top_k = 40;
  SamplingParams nucleus;
  nucleus.top_p = 0.95f;
  penalised.repetition_penalty = 1.1f;
  penalised.logprobs = 5;
  std::printf("%-24s %7s %6s %8s %10s %12s\n", "sampling", "vocab", "batch", "context", "us/step", "allocations");
  for (int batch : {1, 8, 64}) {
    for (int context : {16, 1024}) tinyserve::measure(vocab, batch, context, "greedy", greedy);
    tinyserve::measure(vocab, batch, 16, "temperature", plain);
    tinyserve::measure(vocab, batch, 16, "top_p", nucleus);
    tinyserve::measure(vocab, batch, 16, "top_k + top_p", top);
    tinyserve::measure(vocab, batch, 16, "repetition + logprobs", penalised);
  }
}
