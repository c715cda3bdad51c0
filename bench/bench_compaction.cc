// What compaction costs and wins: two engines in one program, with compaction and without, take turns at the same
// requests on the same model, so that what disturbs one disturbs the other. Prompts of families that share beginnings
// come and go in a pool that is always full; placement by best_fit, and by free_queue, which leaves far more to move.
//   bench_compaction MODEL [requests] [pages] [threads]

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/engine_state.h"
#include "engine/text_stream.h"

namespace tinyserve {
namespace {

constexpr int32_t kRunning = 24, kFamilies = 24, kSlice = 8;  // requests that end before the other's turn

struct Texts final : TokenText {
  std::string token_bytes(int32_t) const override { return "a"; }
  bool is_special(int32_t) const override { return false; }
};

Request make_request(std::mt19937& random, int32_t vocab) {
  const auto family = static_cast<int32_t>(random() % kFamilies);
  const int32_t shared = 32 + family * 37 % 256;
  Request r{std::vector<int32_t>(static_cast<size_t>(shared + 16 + static_cast<int32_t>(random() % 256))), {}};
  std::mt19937 of_family(static_cast<uint32_t>(family));
  for (size_t i = 0; i < r.prompt.size(); ++i)
    r.prompt[i] = static_cast<int32_t>((static_cast<int32_t>(i) < shared ? of_family() : random()) %
                                       static_cast<uint32_t>(vocab));
  r.sampling.temperature = 0;
  r.sampling.ignore_eos = true;
  r.sampling.max_tokens = 16 + static_cast<int32_t>(random() % 240);
  return r;
}

/// One of the two.
class Side {
 public:
  Side(const char* path, ThreadPool& pool, const EngineConfig& config)
      : ops_(ops::make_ops("cpu", pool)),
        model_(Model::load(path, *ops_, {})),
        engine_(*model_, *ops_, static_cast<const TokenText&>(texts_), config, nullptr) {}
  /// Goes on until kSlice more requests have ended; seconds and tokens are added up.
  void turn() {
    const double begin = now_seconds();
    const uint64_t before = tokens();
    for (const int32_t until = ended_ + kSlice; ended_ < until;) {
      while (next_id_ - ended_ < kRunning + 4)
        engine_.add(next_id_++, make_request(random_, model_->config().vocab_size),
                    [this](Output&& o) { ended_ += o.request_done; });
      engine_.step();
      const FragmentationReport f = engine_.stats().fragmentation;
      descriptors += f.descriptors_per_sequence, external += f.external, ++steps;
    }
    seconds.push_back(now_seconds() - begin);
    work.push_back(static_cast<double>(tokens() - before));
  }
  int32_t ended() const { return ended_; }
  EngineStats stats() const { return engine_.stats(); }
  int64_t page_bytes() const { return model_->kv_shape().token_bytes() * engine_.config().page_size; }
  double rate() const { return sum(work) / sum(seconds); }
  std::vector<double> seconds, work;
  double descriptors = 0, external = 0, steps = 0;

 private:
  static double sum(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0); }
  uint64_t tokens() const { return engine_.stats().prompt_tokens + engine_.stats().generated_tokens; }
  std::unique_ptr<ops::Ops> ops_;
  std::unique_ptr<Model> model_;
  Texts texts_;
  std::mt19937 random_{1};
  int32_t next_id_ = 0, ended_ = 0;
  Engine engine_;
};

void measure(const char* path, const char* policy, int32_t requests, int32_t pages, int threads) {
  ThreadPool pool(threads);
  EngineConfig config;
  config.num_pages = pages;
  config.max_context = 1024;
  config.max_running = kRunning;
  config.kv.placement.policy = policy;
  Side on(path, pool, config);
  config.kv.compaction.bytes_per_step = 0;
  Side off(path, pool, config);
  on.turn(), off.turn();  // warms up
  for (Side* side : {&on, &off}) side->seconds.clear(), side->work.clear();
  std::vector<double> ratios;
  for (int32_t i = 0; on.ended() < requests; ++i) {
    (i % 2 ? on : off).turn(), (i % 2 ? off : on).turn();
    ratios.push_back(on.work.back() / on.seconds.back() / (off.work.back() / off.seconds.back()));
  }
  std::sort(ratios.begin(), ratios.end());
  const CompactionStats c = on.stats().compaction;
  const double all_seconds = std::accumulate(on.seconds.begin(), on.seconds.end(), 0.0);
  const double moved = static_cast<double>(c.pages_moved) * static_cast<double>(on.page_bytes());
  std::printf(
      "%-10s on %9.1f tokens/s, off %9.1f: ratio %.4f; of %zu pairs of turns the median %.4f, quartiles %.4f to %.4f\n",
      policy, on.rate(), off.rate(), on.rate() / off.rate(), ratios.size(), ratios[ratios.size() / 2],
      ratios[ratios.size() / 4], ratios[ratios.size() * 3 / 4]);
  std::printf("           descriptors per sequence on %.2f, off %.2f; external fragmentation on %.2f, off %.2f\n",
              on.descriptors / on.steps, off.descriptors / off.steps, on.external / on.steps, off.external / off.steps);
  std::printf(
      "           moved %llu pages, %.1f MB (%llu of them cached content in the way), %.2f bytes per byte of run "
      "length won, %.3f%% of the time\n",
      static_cast<unsigned long long>(c.pages_moved), moved / 1e6, static_cast<unsigned long long>(c.pages_displaced),
      c.pages_won > 0 ? static_cast<double>(c.pages_moved) / c.pages_won : 0, 100 * c.seconds / all_seconds);
  std::fflush(stdout);
}

}  // namespace
}  // namespace tinyserve

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_compaction MODEL [requests] [pages] [threads]\n");
    return 1;
  }
  tinyserve::set_log_level(tinyserve::LogLevel::kWarn);
  const int requests = argc > 2 ? std::atoi(argv[2]) : 400, pages = argc > 3 ? std::atoi(argv[3]) : 640,
            threads = argc > 4 ? std::atoi(argv[4]) : 2;
  try {
    for (const char* policy : {"best_fit", "free_queue"}) tinyserve::measure(argv[1], policy, requests, pages, threads);
  } catch (const tinyserve::InputError& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}
