// Attention alone, over all layers of known geometries, in alternation with the read bandwidth of the same threads.
//   bench_attention [--threads N] [--model tiny,1.1b,mha] [--dtype bf16,f32] [--context 1024,8192,32768] [--batch 1,8]
//                   [--depth 0,4096,32768] [--chunk 512] [--isa avx2|avx512|avx512bf16] [--repeat N]
//                   [--pages scattered,contiguous]
// decode: every sequence has `context` tokens in the cache and one query; GB/s counts each K/V byte once.
// prefill: one chunk of queries after `depth` cached tokens; FLOP: 4 x head_dim x heads x (visible positions), the
// causal half only.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "bandwidth.h"
#include "ops/cpu/cpu_ops.h"

namespace tinyserve::ops {
namespace {

struct Geometry {
  const char* name;
  int32_t heads, kv_heads, head_dim, layers;
};
constexpr Geometry kGeometries[] = {{"tiny", 6, 2, 64, 8}, {"1.1b", 32, 4, 64, 22}, {"mha", 16, 16, 128, 4}};
constexpr size_t kMostBytes = size_t{3} << 29;  // of K and V held; beyond it fewer layers are used

struct Flags {
  int threads = 0, repeat = 7, chunk = 512;
  std::string models = "tiny,1.1b,mha", dtypes = "bf16", contexts = "1024,8192,32768", batches = "1,8";
  std::string depths = "0,4096,32768", isa, pages = "scattered";
};

std::vector<int32_t> numbers(const std::string& list) {
  std::vector<int32_t> values;
  std::stringstream stream(list);
  for (std::string item; std::getline(stream, item, ',');) values.push_back(std::atoi(item.c_str()));
  return values;
}

bool listed(const std::string& list, const std::string& item) {
  return ("," + list + ",").find("," + item + ",") != std::string::npos;
}

// `batch` sequences of `context` cached positions, the last `queries` of them this step's, in scattered pages.
void measure(Ops& ops, Bandwidth& bandwidth, const Geometry& g, DType dtype, int32_t batch, int32_t context,
             int32_t queries, int repeat, bool contiguous) {
  const int32_t pages_each = (context + 15) / 16, num_pages = pages_each * batch;
  KvLayer shape;
  shape.dtype = dtype;
  shape.num_pages = num_pages;
  shape.kv_heads = g.kv_heads;
  shape.head_dim = g.head_dim;
  const size_t layer_bytes = static_cast<size_t>(shape.page_elements()) * num_pages * dtype_bytes(dtype);
  const int layers = static_cast<int>(std::clamp<size_t>(kMostBytes / (2 * layer_bytes), 1, g.layers));
  AlignedBuffer memory(2 * layer_bytes * layers);
  for (size_t i = 0; i < memory.size() / 2; ++i)  // small values of both signs; for F32, pairs of them
    memory.as<uint16_t>()[i] = static_cast<uint16_t>(0x3d00 + i * 2654435761u % 511 + (i & 2) * 0x4000);

  std::vector<int32_t> table(num_pages), cu(batch + 1), lens(batch, context), positions(batch * queries);
  std::iota(table.begin(), table.end(), 0);
  for (int32_t i = num_pages - 1; i > 0 && !contiguous; --i)
    std::swap(table[i], table[(int64_t{i} * 2654435761u + 12345) % (i + 1)]);
  std::vector<int64_t> slots(positions.size());
  for (int32_t s = 0; s < batch; ++s) {
    cu[s + 1] = (s + 1) * queries;
    for (int32_t t = 0; t < queries; ++t) positions[s * queries + t] = context - queries + t;
  }
  BatchLayout layout;
  layout.num_seqs = batch;
  layout.num_tokens = batch * queries;
  layout.cu_query_lens = cu.data();
  layout.kv_lens = lens.data();
  layout.page_table = table.data();
  layout.page_table_stride = pages_each;
  layout.positions = positions.data();
  layout.slots = slots.data();
  const int64_t width = int64_t{g.heads} * g.head_dim;
  std::vector<float> q(layout.num_tokens * width), out(q.size());
  for (size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(static_cast<int>(i * 2654435761u % 1000) - 500) / 300;

  AttentionArgs args;
  args.q = q.data();
  args.q_stride = args.out_stride = width;
  args.num_heads = g.heads;
  args.scale = 0.125f;
  args.cache = shape;
  args.out = out.data();
  ops.reserve({.max_tokens = layout.num_tokens,
               .max_seqs = batch,
               .max_context = context,
               .max_width = width,
               .max_heads = g.heads,
               .max_head_dim = g.head_dim});
  const auto pass = [&] {
    const double begin = now_s();
    for (int layer = 0; layer < layers; ++layer) {
      args.cache.k = memory.data() + 2 * layer_bytes * layer;
      args.cache.v = args.cache.k + layer_bytes;
      ops.attention(args, layout);
    }
    return now_s() - begin;
  };
  pass();
  double best = 1e9, read = 0;
  std::vector<double> ratios;
  const double bytes = 2.0 * static_cast<double>(layer_bytes) * layers;
  for (int i = 0; i < repeat; ++i) {
    const double took = pass(), here = bandwidth.gb_per_s();
    best = std::min(best, took);
    read = std::max(read, here);
    ratios.push_back(bytes / 1e9 / took / here);
  }
  std::sort(ratios.begin(), ratios.end());
  const double visible = queries * (context - (queries - 1) / 2.0);
  const double flop = 4.0 * g.head_dim * g.heads * visible * batch * layers;
  std::printf("%-5s %s %s %2d x %6d", g.name, dtype == DType::kF32 ? "f32 " : "bf16",
              queries == 1 ? "decode " : "prefill", batch, queries == 1 ? context : context - queries);
  if (queries > 1) std::printf(" + %d", queries);
  std::printf(" %s", contiguous ? "contiguous" : "scattered ");
  std::printf(", %2d layers: %9.3f ms", layers, best * 1e3);
  if (queries == 1)
    std::printf(", %7.1f MB, %5.1f GB/s (read %.1f, median ratio %.2f)", bytes / 1e6, bytes / 1e9 / best, read,
                ratios[ratios.size() / 2]);
  std::printf(", %6.1f GFLOP/s\n", flop / 1e9 / best);
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
    if (flag == "--threads")
      flags.threads = std::atoi(argv[i + 1]);
    else if (flag == "--repeat")
      flags.repeat = std::atoi(argv[i + 1]);
    else if (flag == "--chunk")
      flags.chunk = std::atoi(argv[i + 1]);
    else if (flag == "--model")
      flags.models = value;
    else if (flag == "--dtype")
      flags.dtypes = value;
    else if (flag == "--context")
      flags.contexts = value;
    else if (flag == "--batch")
      flags.batches = value;
    else if (flag == "--depth")
      flags.depths = value;
    else if (flag == "--pages")
      flags.pages = value;
    else if (flag == "--isa")
      flags.isa = value;
    else
      return std::fprintf(stderr, "unknown flag %s; the head of bench_attention.cc lists them\n", argv[i]), 2;
  }
  ThreadPool pool(flags.threads);
  const cpu::Isa isa = flags.isa == "avx2"     ? cpu::Isa::kAvx2
                       : flags.isa == "avx512" ? cpu::Isa::kAvx512
                                               : cpu::detect_isa();
  const auto ops = make_cpu_ops(pool, {}, isa);
  Bandwidth bandwidth(pool);
  std::printf("%s; read bandwidth %.1f GB/s\n", ops->description().c_str(), bandwidth.gb_per_s());
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    if (!listed(flags.dtypes, dtype == DType::kF32 ? "f32" : "bf16")) continue;
    for (const auto& g : kGeometries) {
      if (!listed(flags.models, g.name)) continue;
      for (const int32_t batch : numbers(flags.batches))
        for (const int32_t context : numbers(flags.contexts))
          for (const bool contiguous : {false, true})
            if (listed(flags.pages, contiguous ? "contiguous" : "scattered"))
              measure(*ops, bandwidth, g, dtype, batch, context, 1, flags.repeat, contiguous);
      for (const int32_t depth : numbers(flags.depths))
        measure(*ops, bandwidth, g, dtype, 1, depth + flags.chunk, flags.chunk, flags.repeat,
                flags.pages == "contiguous");
    }
  }
}
