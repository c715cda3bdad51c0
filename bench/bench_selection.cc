// Query-aware selection on the CPU against dense attention, over all layers of known geometries, in alternation.
//   bench_selection [--threads N] [--model tiny,qwen,1.1b,mha] [--context 8192,32768] [--batch 1] [--exact 256]
//   [--coded 1024]
//                   [--fine 4] [--value-codes 1] [--audit 1] [--top-p .9]
//                   [--shared TOKENS: that all sequences have in the same pages] [--isa avx2|avx512|avx512bf16] [--repeat 7]
//                   [--layers N]
//                   [--pages scattered|contiguous]
// One query a sequence. Keys vary less from axis to axis, tokens and pages lie scattered: what is chosen lies anywhere.
// Prints what each reads (codes, means, scales, keys and values of all layers), the least time of each phase over the
// repetitions, and what coding pages costs a token.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "bandwidth.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/linear.h"
#include "ops/cpu/selection.h"

namespace tinyserve::ops {
namespace {

struct Geometry {
  const char* name;
  int32_t heads, kv_heads, head_dim, layers, ffn;
};
constexpr Geometry kGeometries[] = {
    {"tiny", 6, 2, 64, 8, 1024}, {"qwen", 14, 2, 64, 24, 4864}, {"1.1b", 32, 4, 64, 22, 5632}, {"mha", 16, 16, 128, 24, 5504}};
constexpr size_t kMostBytes = size_t{3} << 29;  // of K and V held; beyond it fewer layers are used

struct Flags {
  int threads = 0, repeat = 7, layers = 1000, exact = 256, coded = 1024, fine = 4, value_codes = 1, audit = 0, shared = 0;
  float top_p = 0;
  std::string models = "tiny,qwen,1.1b,mha", pages = "scattered", contexts = "8192,32768", batches = "1", isa;
};

std::vector<int32_t> numbers(const std::string& list) {
  std::vector<int32_t> values;
  std::stringstream stream(list);
  for (std::string item; std::getline(stream, item, ',');) values.push_back(std::atoi(item.c_str()));
  return values;
}

float uniform(uint64_t i) {  // of variance 1
  i = (i + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
  i = (i ^ (i >> 27)) * 0x94d049bb133111ebu;
  return static_cast<float>(static_cast<double>(i >> 11) * 0x1p-53 * 2 - 1) * 1.7320508f;
}

struct Map {
  std::vector<HeadBits> bits;
  std::vector<float> mean, to_axes, from_axes, coarse_error, fine_error;
  SelectionMap view() const {
    return {bits.data(), mean.data(), to_axes.data(), from_axes.data(), coarse_error.data(), fine_error.data()};
  }
};

float deviation(int32_t axis, int32_t d) { return 2 * std::exp(-4.0f * static_cast<float>(axis) / static_cast<float>(d)); }

Map make_map(const Geometry& g) {
  Map m;
  const int32_t d = g.head_dim, coarse = coarse_units(d);
  HeadBits bits;
  bits.coarse4 = static_cast<uint8_t>(coarse / 3);
  bits.coarse2 = static_cast<uint8_t>(coarse - 2 * bits.coarse4);
  bits.fine4 = static_cast<uint8_t>(d / 12);
  bits.fine2 = static_cast<uint8_t>(d / 4 - 2 * bits.fine4);
  const auto error = [](int32_t b) { return b == 4 ? kDistortion4 : b == 2 ? kDistortion2 : kDistortion0; };
  m.bits.assign(g.kv_heads, bits);
  m.mean.assign(g.kv_heads * d, 0.0f);
  m.to_axes.assign(int64_t{g.kv_heads} * d * d, 0.0f);
  m.from_axes = m.to_axes;
  for (int32_t h = 0; h < g.kv_heads; ++h)
    for (int32_t a = 0; a < d; ++a) {
      m.to_axes[(int64_t{h} * d + a) * d + a] = 1 / deviation(a, d);
      m.from_axes[(int64_t{h} * d + a) * d + a] = deviation(a, d);
      m.coarse_error.push_back(error(bits.coarse(a / 4)));
      m.fine_error.push_back(error(bits.fine(a / 4)));
    }
  return m;
}

struct Layer {
  AlignedBuffer k, v;
  PageCodes codes;
};

class Bench {
 public:
  Bench(const Flags& flags, ThreadPool& pool, cpu::Isa isa)
      : flags_(flags), pool_(pool), dense_(pool, isa), sparse_(pool, isa), bandwidth_(pool) {}

  void run(const Geometry& g, int32_t context, int32_t batch);

 private:
  double prefill_s(const Geometry& g);

  const Flags& flags_;
  ThreadPool& pool_;
  cpu::CpuAttention dense_;
  cpu::CpuSelection sparse_;
  Bandwidth bandwidth_;
};

// Of a token and layer: its matrices in BF16, as one.
double Bench::prefill_s(const Geometry& g) {
  constexpr int64_t kRows = 512;
  const int64_t in = g.heads * g.head_dim, out = 2 * in + 2 * g.kv_heads * g.head_dim + 3 * g.ffn;
  CpuLinear linear(pool_, {});
  linear.reserve({.max_tokens = kRows});
  const std::vector<uint16_t> source(in * out, to_bfloat16(0.01f).bits);
  const WeightSource part{{reinterpret_cast<const std::byte*>(source.data()), DType::kBF16, {out, in}}};
  const auto weight = linear.pack_weight({&part, 1}, WeightFormat::kBF16);
  std::vector<float> x(kRows * in, 1.0f), y(kRows * out);
  double best = 1e9;
  for (int i = 0; i < 8; ++i) {
    const double begin = now_s();
    linear.run({x.data(), in, kRows, weight.get(), nullptr, y.data(), out, false});
    best = std::min(best, now_s() - begin);
  }
  return best / kRows;
}

void Bench::run(const Geometry& g, int32_t context, int32_t batch) {
  const int32_t pages_each = (context + 15) / 16, num_pages = pages_each * batch, d = g.head_dim;
  KvLayer shape{.num_pages = num_pages, .kv_heads = g.kv_heads, .head_dim = d};
  const int64_t elements = shape.page_elements() * num_pages, blocks = int64_t{num_pages} * g.kv_heads;
  const int layers = static_cast<int>(std::clamp<int64_t>(static_cast<int64_t>(kMostBytes) / (4 * elements), 1, std::min(g.layers, flags_.layers)));
  const Map map = make_map(g);
  const Limits limits{.max_tokens = batch, .max_seqs = batch, .max_context = context, .max_width = int64_t{g.heads} * d,
                      .max_heads = g.heads, .max_head_dim = d};
  dense_.reserve(limits);
  sparse_.reserve(limits);

  std::vector<Layer> memory(layers);
  std::vector<int32_t> table(num_pages);
  std::iota(table.begin(), table.end(), 0);
  double encode_s = 1e9;
  const auto cache_of = [&](Layer& m) {
    KvLayer cache = shape;
    cache.k = m.k.data();
    cache.v = m.v.data();
    cache.codes = m.codes;
    return cache;
  };
  std::vector<uint16_t> noise(1 << 20);  // of one deviation, as BF16; each layer begins elsewhere in it
  for (size_t i = 0; i < noise.size(); ++i) noise[i] = to_bfloat16(uniform(i) * deviation(static_cast<int32_t>(i) % d, d)).bits;
  // One piece of memory, so that huge pages hold it: scattered reads of small pages are bound by address translation.
  AlignedBuffer codes(layers * (blocks * (coarse_bytes(d) + fine_bytes(d) + mean_bytes(d) + value_bytes(d)) + 4 * 64));
  uint8_t* next = codes.as<uint8_t>();
  for (int l = 0; l < layers; ++l) {
    Layer& m = memory[l];
    m.k = AlignedBuffer(2 * elements);
    m.v = AlignedBuffer(2 * elements);
    const auto take = [&](int64_t bytes) {
      uint8_t* at = next;
      next += (blocks * bytes + 63) / 64 * 64;
      return at;
    };
    m.codes = {take(coarse_bytes(d)), take(fine_bytes(d)), take(mean_bytes(d)), nullptr};
    if (flags_.value_codes) m.codes.values = reinterpret_cast<uint64_t*>(take(value_bytes(d)));
    for (int64_t row = 0; row < elements / d; ++row) {
      const uint64_t at = (static_cast<uint64_t>(row + l) * 2654435761u >> 7) % (noise.size() / d - 1) * d;
      std::memcpy(m.k.data() + row * d * 2, noise.data() + at, d * 2);
      std::memcpy(m.v.data() + row * d * 2, noise.data() + noise.size() - d - at, d * 2);
    }
    for (int i = 0; i < 2; ++i) {  // the first touches memory
      const double begin = now_s();
      sparse_.encode({.cache = cache_of(m), .map = map.view(), .pages = table});
      encode_s = std::min(encode_s, now_s() - begin);
    }
  }
  for (int32_t i = num_pages - 1; i > 0 && flags_.pages != "contiguous"; --i) std::swap(table[i], table[(int64_t{i} * 2654435761u + 12345) % (i + 1)]);
  for (int32_t s = 1; s < batch; ++s)
    std::copy_n(table.begin(), std::min(pages_each, flags_.shared / 16), table.begin() + int64_t{s} * pages_each);

  std::vector<int32_t> cu(batch + 1), lens(batch, context), positions(batch, context - 1);
  std::iota(cu.begin(), cu.end(), 0);
  std::vector<int64_t> slots(batch);
  std::vector<SparseRow> rows;
  for (int32_t s = 0; s < batch; ++s)
    rows.push_back({.row = s,
                    .seq = s,
                    .position = context - 1,
                    .exact = flags_.exact,
                    .coded = flags_.coded,
                    .top_p = flags_.top_p,
                    .audit = static_cast<uint64_t>(flags_.audit) * (s + 1)});
  const BatchLayout layout{.num_seqs = batch, .num_tokens = batch, .cu_query_lens = cu.data(), .kv_lens = lens.data(),
                           .page_table = table.data(), .page_table_stride = pages_each, .positions = positions.data(), .slots = slots.data()};
  const int64_t width = int64_t{g.heads} * d;
  std::vector<float> q(batch * width), out(q.size());
  for (size_t i = 0; i < q.size(); ++i) q[i] = 3 * uniform(i * 77);
  const float scale = 1 / std::sqrt(static_cast<float>(d));
  std::vector<SparseStats> stats(rows.size() * g.kv_heads);
  const auto pass = [&](bool sparse) {
    const double begin = now_s();
    for (Layer& m : memory) {
      if (sparse)
        sparse_.attention({.q = q.data(), .q_stride = width, .num_heads = g.heads, .scale = scale, .cache = cache_of(m), .map = map.view(),
                           .rows = rows, .fine_divisor = flags_.fine, .out = out.data(), .out_stride = width, .stats = stats.data()},
                          layout);
      else
        dense_.run({.q = q.data(), .q_stride = width, .num_heads = g.heads, .scale = scale, .cache = cache_of(m), .out = out.data(), .out_stride = width},
                   layout);
    }
    return now_s() - begin;
  };
  std::vector<cpu::SelectionTrace> trace(pool_.num_threads());
  double phases[cpu::SelectionTrace::kPhases];
  std::fill(phases, std::end(phases), 1e30);
  pass(true), pass(false);
  double dense = 1e9, sparse = 1e9, read = 0;
  std::vector<double> ratios;
  for (int i = 0; i < flags_.repeat; ++i) {
    const double d_s = pass(false);
    std::fill(trace.begin(), trace.end(), cpu::SelectionTrace{});
    sparse_.trace(trace.data());
    const double s_s = pass(true);
    sparse_.trace(nullptr);
    for (int p = 0; p < cpu::SelectionTrace::kPhases; ++p) {
      double ticks = 0;
      for (const cpu::SelectionTrace& t : trace) ticks += static_cast<double>(t.ticks[p]);
      phases[p] = std::min(phases[p], ticks);
    }
    dense = std::min(dense, d_s), sparse = std::min(sparse, s_s);
    ratios.push_back(d_s / s_s);
    read = std::max(read, bandwidth_.gb_per_s());
  }
  std::sort(ratios.begin(), ratios.end());
  double bytes = 0, shares[3] = {};
  for (const SparseStats& s : stats) {
    bytes += double{s.bytes} * layers;
    shares[0] += s.exact_share / stats.size(), shares[1] += s.coded_share / stats.size(), shares[2] += s.estimated_share / stats.size();
  }
  const double all = 4.0 * static_cast<double>(elements) * layers;
  std::printf("%-5s %2d x %6d, %2d layers: dense %8.3f ms (%5.1f GB/s), sparse %7.3f ms: 1/%.1f of dense's best, 1/%.1f median; bytes 1/%.1f, %5.1f GB/s "
              "(read %.1f); mass exact %.2f coded %.2f estimated %.2f\n",
              g.name, batch, context, layers, dense * 1e3, all / 1e9 / dense, sparse * 1e3, dense / sparse, ratios[ratios.size() / 2],
              all / bytes, bytes / 1e9 / sparse, read, shares[0], shares[1], shares[2]);
  static constexpr const char* kNames[] = {"queries", "coarse", "pages", "fine", "tokens",
                                           "means",   "coded",  "exact", "audit"};
  const uint64_t tick = cpu::SelectionTrace::now();
  const double since = now_s();
  while (now_s() < since + 0.05) {
  }
  const double ticks_per_s = static_cast<double>(cpu::SelectionTrace::now() - tick) / (now_s() - since);
  const double coding_us = encode_s * 1e6 / (double{1} * num_pages * 16), prefill_us = prefill_s(g) * 1e6;
  std::printf("      us per KV head:");
  const double tasks = static_cast<double>(rows.size()) * g.kv_heads * layers;
  for (int p = 0; p < cpu::SelectionTrace::kPhases; ++p) {
    std::printf(" %s %.1f", kNames[p], phases[p] / ticks_per_s * 1e6 / tasks);
  }
  std::printf(", all %.1f; coding %.2f us a token and layer, %.1f%% of %.2f\n", sparse * 1e6 * pool_.num_threads() / tasks, coding_us, 100 * coding_us / prefill_us, prefill_us);
  std::fflush(stdout);
}

}  // namespace
}  // namespace tinyserve::ops

int main(int argc, char** argv) {
  using namespace tinyserve;
  using namespace tinyserve::ops;
  Flags flags;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    const int number = std::atoi(argv[i + 1]);
    if (flag == "--threads") flags.threads = number;
    else if (flag == "--repeat") flags.repeat = number;
    else if (flag == "--layers") flags.layers = number;
    else if (flag == "--pages") flags.pages = value;
    else if (flag == "--exact") flags.exact = number;
    else if (flag == "--coded") flags.coded = number;
    else if (flag == "--fine") flags.fine = number;
    else if (flag == "--value-codes") flags.value_codes = number;
    else if (flag == "--audit")
      flags.audit = number;
    else if (flag == "--shared") flags.shared = number;
    else if (flag == "--top-p")
      flags.top_p = static_cast<float>(std::atof(argv[i + 1]));
    else if (flag == "--model") flags.models = value;
    else if (flag == "--context") flags.contexts = value;
    else if (flag == "--batch") flags.batches = value;
    else if (flag == "--isa") flags.isa = value;
    else return std::fprintf(stderr, "unknown flag %s; the head of bench_selection.cc lists them\n", argv[i]), 2;
  }
  ThreadPool pool(flags.threads);
  const cpu::Isa isa = flags.isa == "avx2" ? cpu::Isa::kAvx2 : flags.isa == "avx512" ? cpu::Isa::kAvx512 : cpu::detect_isa();
  const cpu::ScopedIsa scope(isa);
  Bench bench(flags, pool, isa);
  for (const Geometry& g : kGeometries)
    if (("," + flags.models + ",").find("," + std::string(g.name) + ",") != std::string::npos)
      for (const int32_t batch : numbers(flags.batches))
        for (const int32_t context : numbers(flags.contexts)) bench.run(g, context, batch);
}
