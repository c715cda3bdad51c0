// The matrix products of whole models, without the rest: one pass over every layer's weights, as a decode step or a
// prefill chunk makes them, next to the read bandwidth that the same threads reach in the same moment.
//   bench_linear [--threads N] [--model tiny,1.1b,0.5b] [--format bf16,int8,f32,Q4_K,...] [--rows 1,4,8,16,512]
//                [--kernels NAME] [--repeat N] [--not-invariant] [--cpu-time]
// A block format of GGUF files leaves out the products whose inputs are not whole blocks.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "bandwidth.h"
#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "ops/cpu/linear.h"
#include "ops/cpu/linear_kernels.h"

namespace tinyserve::ops {
namespace {

// --cpu-time: the processor time of one thread, which on a busy machine says more than the clock on the wall.
bool cpu_time = false;

double now_s() {
  timespec t;
  clock_gettime(cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Geometry {
  const char* name;
  int64_t hidden, ffn, kv, vocab, layers;  // layers: enough that no cache holds them, where the model is that large
};
constexpr Geometry kGeometries[] = {
    {"tiny", 384, 1024, 192, 8192, 8}, {"1.1b", 2048, 5632, 256, 32000, 6}, {"0.5b", 896, 4864, 128, 151936, 24}};

// A format of weights, or of blocks.
struct Format {
  std::string name;
  WeightFormat weights;
  std::optional<BlockFormat> blocks;
};
std::vector<Format> all_formats() {
  std::vector<Format> all = {
      {"bf16", WeightFormat::kBF16, {}}, {"int8", WeightFormat::kInt8, {}}, {"f32", WeightFormat::kF32, {}}};
  for (int f = 0; f < kNumBlockFormats; ++f)
    all.push_back({std::string(block_layout(static_cast<BlockFormat>(f)).name), WeightFormat::kBlocks,
                   static_cast<BlockFormat>(f)});
  return all;
}

struct Product {
  const char* name;
  int64_t in, out, count;
  std::vector<std::unique_ptr<PackedWeight>> weights;
  double best_s = 1e9;
};

bool listed(const std::string& list, const std::string& item) {
  return ("," + list + ",").find("," + item + ",") != std::string::npos;
}

void measure(ThreadPool& pool, const OpsOptions& options, const linear::Kernels& kernels, const Geometry& g,
             const Format& format, const std::vector<int64_t>& row_counts, int repeat, Bandwidth& bandwidth) {
  CpuLinear cpu(pool, options, kernels);
  const int64_t most = *std::max_element(row_counts.begin(), row_counts.end());
  cpu.reserve({.max_tokens = most});
  std::vector<Product> products;
  products.push_back({"qkv", g.hidden, g.hidden + 2 * g.kv, g.layers, {}});
  products.push_back({"o", g.hidden, g.hidden, g.layers, {}});
  products.push_back({"gate_up", g.hidden, 2 * g.ffn, g.layers, {}});
  products.push_back({"down", g.ffn, g.hidden, g.layers, {}});
  products.push_back({"head", g.hidden, g.vocab, 1, {}});

  if (format.blocks)
    std::erase_if(products, [&](const Product& p) { return p.in % block_layout(*format.blocks).values != 0; });

  std::vector<uint16_t> source(static_cast<size_t>(g.hidden * std::max(g.vocab, 2 * g.ffn)));
  for (size_t i = 0; i < source.size(); ++i)
    source[i] = static_cast<uint16_t>(0x3c00 + i * 2654435761u % 255 + (i & 1) * 0x8000);
  double bytes = 0, flop_per_row = 0, begin = now_s();
  for (Product& p : products)
    for (int64_t i = 0; i < p.count; ++i) {
      const WeightSource part{
          {reinterpret_cast<const std::byte*>(source.data()), DType::kBF16, {p.out, p.in}, format.blocks}};
      p.weights.push_back(cpu.pack_weight({&part, 1}, format.weights));
      bytes += static_cast<double>(p.weights.back()->size_bytes);
      flop_per_row += 2.0 * static_cast<double>(p.in * p.out);
    }
  std::printf("%s %s, %s, %d threads: %.0f MB packed in %.2f s\n", g.name, format.name.c_str(),
              cpu.description().c_str(), pool.num_threads(), bytes / 1e6, now_s() - begin);
  const int64_t widest = std::max({g.vocab, 2 * g.ffn, g.hidden});
  std::vector<float> x(static_cast<size_t>(most * widest)), y(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 2654435761u % 1000) - 500) / 500;

  for (int64_t rows : row_counts) {
    double best = 1e9, read = 0;
    std::vector<double> ratios;
    for (Product& p : products) p.best_s = 1e9;
    const int rounds = rows > 64 ? std::max(1, repeat / 4) : repeat;
    for (int round = 0; round < rounds; ++round) {
      double total = 0;
      for (Product& p : products) {
        const double from = now_s();
        for (const auto& w : p.weights) cpu.run({x.data(), p.in, rows, w.get(), nullptr, y.data(), p.out, false});
        const double took = now_s() - from;
        p.best_s = std::min(p.best_s, took);
        total += took;
      }
      best = std::min(best, total);
      const double here = bandwidth.gb_per_s(now_s);
      read = std::max(read, here);
      ratios.push_back(bytes / 1e9 / total / here);
    }
    std::sort(ratios.begin(), ratios.end());
    std::printf("%4lld rows: %8.3f ms, %5.1f GB/s (best read %.1f, median ratio %.2f), %6.1f GFLOP/s |",
                static_cast<long long>(rows), best * 1e3, bytes / 1e9 / best, read, ratios[ratios.size() / 2],
                flop_per_row * static_cast<double>(rows) / 1e9 / best);
    for (const Product& p : products)
      std::printf(" %s %.1f us %.1f GB/s %.0f GF;", p.name, p.best_s * 1e6 / static_cast<double>(p.count),
                  static_cast<double>(p.weights[0]->size_bytes * p.weights.size()) / 1e9 / p.best_s,
                  2e-9 * static_cast<double>(p.in * p.out * p.count * rows) / p.best_s);
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace tinyserve::ops

int main(int argc, char** argv) {
  using namespace tinyserve;
  using namespace tinyserve::ops;
  int threads = 0, repeat = 12;
  std::string models = "tiny,1.1b", formats = "bf16,int8,f32", rows = "1,4,8,16,512", name;
  OpsOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (flag == "--not-invariant") {
      options.batch_invariant = false;
      continue;
    }
    if (flag == "--cpu-time") {
      cpu_time = true;
      continue;
    }
    ++i;
    if (flag == "--threads")
      threads = std::atoi(value);
    else if (flag == "--model")
      models = value;
    else if (flag == "--format")
      formats = value;
    else if (flag == "--rows")
      rows = value;
    else if (flag == "--kernels")
      name = value;
    else if (flag == "--repeat")
      repeat = std::max(1, std::atoi(value));
    else
      return std::fprintf(stderr, "unknown flag %s; see the head of bench_linear.cc\n", flag.c_str()), 2;
  }
  std::vector<int64_t> row_counts;
  for (const char* p = rows.c_str(); *p;) {
    row_counts.push_back(std::max(1, std::atoi(p)));
    p += std::strcspn(p, ",");
    p += *p == ',';
  }
  const linear::Kernels* kernels = linear::available_kernels().front();
  for (const linear::Kernels* k : linear::available_kernels())
    if (name == k->name) kernels = k;
  ThreadPool pool(cpu_time ? 1 : threads);
  Bandwidth bandwidth(pool);
  for (const Geometry& g : kGeometries)
    for (const Format& format : all_formats())
      if (listed(models, g.name) && listed(formats, format.name))
        measure(pool, options, *kernels, g, format, row_counts, repeat, bandwidth);
}
