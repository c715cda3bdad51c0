// Offloading K/V from a pool that is always short of pages: bytes a transfer and GB/s to host memory and back, and to a
// file and back, with placement by `best_fit` and by `free_queue`, beside one large memcpy. The engine runs on a model
// that only takes the time of computing; prompts of families that share their beginnings come, go, and come back.
//   bench_tiers [requests] [file for the disk tier]

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/engine_state.h"
#include "engine/text_stream.h"

namespace tinyserve {
namespace {

constexpr int32_t kPages = 4096, kFamilies = 64, kRunning = 32;
constexpr size_t kLarge = size_t{256} << 20;

struct Served {
  const char* name;
  KvShape kv;
  double prompt_us;  // of a token: what makes bringing pages back worth it, as on a busy server
};

/// Takes as long as its prompt tokens would; computes nothing.
class WaitingModel final : public Model {
 public:
  explicit WaitingModel(const Served& shape) : shape_(shape) {
    config_.vocab_size = 256;
    config_.max_positions = 32768;
  }
  const ModelConfig& config() const override { return config_; }
  KvShape kv_shape() const override { return shape_.kv; }
  size_t weight_bytes() const override { return 0; }
  void reserve(int64_t, int64_t, int64_t, int64_t) override {}
  void forward(const Step& step, std::span<const ops::KvLayer> layers, float* logits) override {
    std::fill_n(logits, step.logit_rows.size() * config_.vocab_size, 0.0f);
    for (const ops::KvLayer& l : layers)  // pages that are not written would be read from one page of zeros
      for (const int32_t slot : std::span(step.layout.slots, step.layout.num_tokens)) touch(l, slot);
    std::this_thread::sleep_for(std::chrono::duration<double, std::micro>(shape_.prompt_us * step.layout.num_tokens));
  }

 private:
  static void touch(const ops::KvLayer& l, int32_t slot) {
    const int64_t page = slot / l.page_size, size = l.page_elements() * 2;
    const int64_t at = page * size + slot % l.page_size * (size / l.page_size);
    for (std::byte* tensor : {l.k, l.v}) std::memset(tensor + at, slot & 0xff, size / l.page_size);
  }
  const Served shape_;
  ModelConfig config_;
};

struct Texts final : TokenText {
  std::string token_bytes(int32_t) const override { return "a"; }
  bool is_special(int32_t) const override { return false; }
};

std::vector<int32_t> prompt(std::mt19937& random) {
  // Family f is asked for in proportion to 1 / (f + 1), as popular system prompts are.
  static const std::discrete_distribution<int32_t>::param_type popularity = [] {
    std::vector<double> weights;
    for (int32_t f = 0; f < kFamilies; ++f) weights.push_back(1.0 / (f + 1));
    return std::discrete_distribution<int32_t>::param_type(weights.begin(), weights.end());
  }();
  std::discrete_distribution<int32_t> family_of(popularity);
  const int32_t family = family_of(random), shared = 256 + family * 1103 % 1792;
  std::vector<int32_t> tokens(shared + 16 + static_cast<int32_t>(random() % 497));
  std::mt19937 of_family(static_cast<uint32_t>(family));
  for (int32_t i = 0; i < static_cast<int32_t>(tokens.size()); ++i)
    tokens[i] = static_cast<int32_t>((i < shared ? of_family() : random()) % 256);
  return tokens;
}

/// Counts of the second half of the requests: by then both memories are resident, and the file has its size.
struct Moved {
  TransferStats host_down, host_up, disk_written, disk_read, disk_up;
};

TransferStats since(const TransferStats& now, const TransferStats& then) {
  return {now.pages - then.pages, now.bytes - then.bytes, now.transfers - then.transfers, now.seconds - then.seconds};
}

Moved serve(const Served& shape, const char* policy, bool compaction, int64_t host_pages, const std::string& disk,
            int requests) {
  ThreadPool pool(1);
  const auto ops = ops::make_ops("ref", pool);
  WaitingModel model(shape);
  Texts texts;
  EngineConfig config;
  config.num_pages = kPages;
  config.max_context = 4096;
  config.max_running = kRunning;
  config.kv.placement.policy = policy;
  if (!compaction) config.kv.compaction.bytes_per_step = 0;
  config.tiers.host_bytes = host_pages * shape.kv.token_bytes() * config.page_size;
  config.tiers.disk_path = disk;
  config.tiers.disk_bytes = int64_t{1} << 30;
  config.tiers.fingerprint = "bench";
  Engine engine(model, *ops, texts, config, nullptr);
  std::mt19937 random(1);
  int32_t running = 0;
  TierStats then;
  for (int i = 0; i < requests || running > 0;) {
    for (; i < requests && running < kRunning + 8; ++i, ++running) {
      if (i == requests / 2) then = engine.stats().tiers;
      Request r{prompt(random), {}};
      r.sampling.temperature = 0;
      r.sampling.ignore_eos = true;
      r.sampling.max_tokens = 16 + static_cast<int32_t>(random() % 240);
      engine.add(i, std::move(r), [&](Output&& o) { running -= o.request_done; });
    }
    engine.step();
  }
  const TierStats now = engine.stats().tiers;
  return {since(now.host_down, then.host_down), since(now.host_up, then.host_up),
          since(now.disk.written, then.disk.written), since(now.disk.read, then.disk.read),
          since(now.disk_up, then.disk_up)};
}

double large_memcpy() {
  static AlignedBuffer from(kLarge), to(kLarge);
  static const bool touched = (std::memset(from.data(), 1, kLarge), std::memset(to.data(), 2, kLarge), true);
  if (!touched) std::abort();
  const double begin = now_seconds();
  std::memcpy(to.data(), from.data(), kLarge);
  return kLarge / 1e9 / (now_seconds() - begin);
}

/// Writing and reading a file in calls of 16 MiB: what the disk tier could have at best.
std::pair<double, double> large_file(const std::string& path) {
  constexpr size_t kCall = size_t{16} << 20;
  std::vector<std::byte> bytes(kCall, std::byte{1});
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) return {};
  const double begin = now_seconds();
  for (size_t at = 0; at < kLarge; at += kCall)
    if (::pwrite(fd, bytes.data(), kCall, static_cast<off_t>(at)) != static_cast<ssize_t>(kCall)) std::abort();
  const double written = now_seconds();
  for (size_t at = 0; at < kLarge; at += kCall)
    if (::pread(fd, bytes.data(), kCall, static_cast<off_t>(at)) != static_cast<ssize_t>(kCall)) std::abort();
  const double read = now_seconds();
  ::close(fd);
  ::unlink(path.c_str());
  return {kLarge / 1e9 / (written - begin), kLarge / 1e9 / (read - written)};
}

void print(const char* policy, const char* what, const TransferStats& s, double large) {
  std::printf("  %-24s %-13s %8llu %9.1f %10llu %14.0f %7.2f %9.2f\n", policy, what,
              static_cast<unsigned long long>(s.pages), static_cast<double>(s.bytes) / 1e6,
              static_cast<unsigned long long>(s.transfers), s.bytes_per_transfer(), s.gb_per_s(),
              large > 0 ? s.gb_per_s() / large : 0);
}

struct Variant {
  const char* name;
  const char* policy;
  bool compaction;
};
constexpr Variant kVariants[] = {
    {"free_queue", "free_queue", false}, {"best_fit", "best_fit", false}, {"best_fit, compaction", "best_fit", true}};

void measure(const Served& shape, int requests, const std::string& file) {
  std::printf("%s: a page is %lld bytes, in %d tensors of %lld; pool of %d pages; %d requests\n", shape.name,
              static_cast<long long>(shape.kv.token_bytes() * 16), shape.kv.num_layers * 2,
              static_cast<long long>(shape.kv.token_bytes() * 16 / shape.kv.num_layers / 2), kPages, requests);
  std::printf("  %-24s %-13s %8s %9s %10s %14s %7s %9s\n", "placement", "", "pages", "MB", "transfers",
              "bytes/transfer", "GB/s", "of large");
  std::vector<TransferStats> down, up;
  for (const Variant& v : kVariants) {
    std::vector<double> copies{large_memcpy(), large_memcpy()};
    const Moved host = serve(shape, v.policy, v.compaction, kPages, "", requests);
    copies.push_back(large_memcpy()), copies.push_back(large_memcpy());
    std::sort(copies.begin(), copies.end());
    const double large = (copies[1] + copies[2]) / 2;
    std::printf("  %-24s %-13s %8s %9.1f %10d %14.0f %7.2f\n", "", "one memcpy", "", kLarge / 1e6, 1,
                static_cast<double>(kLarge), large);
    print(v.name, "to host", host.host_down, large);
    print(v.name, "from host", host.host_up, large);
    down.push_back(host.host_down), up.push_back(host.host_up);
  }
  std::printf("  best_fit against free_queue: bytes a transfer down %.1fx, up %.1fx; GB/s down %.2fx, up %.2fx\n",
              down[1].bytes_per_transfer() / down[0].bytes_per_transfer(),
              up[1].bytes_per_transfer() / up[0].bytes_per_transfer(), down[1].gb_per_s() / down[0].gb_per_s(),
              up[1].gb_per_s() / up[0].gb_per_s());
  if (file.empty()) return;
  for (const Variant& v : kVariants) {
    const auto [write, read] = large_file(file);
    const Moved disk = serve(shape, v.policy, v.compaction, 0, file, requests);
    std::filesystem::remove(file);
    std::printf("  %-24s calls of 16 MiB: %.2f GB/s written, %.2f GB/s read\n", "", write, read);
    print(v.name, "to file", disk.disk_written, write);
    print(v.name, "from file", disk.disk_read, read);
    print(v.name, "into the pool", disk.disk_up, 0);
  }
}

}  // namespace
}  // namespace tinyserve

int main(int argc, char** argv) {
  using namespace tinyserve;
  const int requests = argc > 1 ? std::atoi(argv[1]) : 1000;
  if (requests < 1) {
    std::fprintf(stderr, "usage: bench_tiers [requests] [file for the disk tier]\n");
    return 1;
  }
  set_log_level(LogLevel::kWarn);
  // As Qwen2.5-0.5B has them.
  const Served small{
      "24 layers, 2 KV heads of 64", {.num_layers = 24, .kv_heads = 2, .head_dim = 64, .dtype = DType::kBF16}, 8};
  measure(small, requests, argc > 2 ? argv[2] : "");
}
