// What it costs to know how fragmented KV memory is, and to plan compaction, per decode step of a full pool.
//   bench_fragmentation [pages] [sequences]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "kv/kv_manager.h"
#include "kv/page_map.h"
#include "kv/page_table.h"

namespace tinyserve {
namespace {

constexpr int32_t kPageSize = 16, kSteps = 512;
constexpr int64_t kPageBytes = 24576;  // of the bundled model: the smallest worth serving

double now_us() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void measure(int32_t num_pages, int32_t num_sequences, bool compaction) {
  KvConfig config;
  config.prefix.policy = PrefixPolicy::kOff;
  config.placement.policy = "free_queue";  // the most runs there can be
  if (!compaction) config.compaction.bytes_per_step = 0;
  KvManager kv(config, num_pages, kPageSize, kPageBytes);
  std::vector<std::unique_ptr<PageTable>> tables(num_sequences);
  std::mt19937 random(1);
  std::vector<PageRef> refs;
  for (auto& table : tables) table = std::make_unique<PageTable>(kv.pool());
  const int32_t each = num_pages / num_sequences * 9 / 10;
  for (int32_t i = 0; i < each; ++i) {  // grown in turns: no two pages of a sequence lie side by side
    for (auto& table : tables) {
      refs.clear();
      if (!kv.pool().allocate({.count = 1}, refs)) std::abort();
      table->set(table->size(), std::move(refs[0]));
    }
  }
  double total = 0, worst = 0, report = 0, plan = 0;
  int64_t moved = 0;
  for (int32_t step = 0; step < kSteps; ++step) {
    const double start = now_us();
    for (auto& table : tables) kv.computed(*table, each * kPageSize - 1, 1);
    kv.end_step(step);
    const double closed = now_us();
    const FragmentationReport r = kv.fragmentation();
    const double reported = now_us();
    if (r.descriptors == 0) std::abort();
    const MovePlan& moves = kv.compact(step);
    moved += static_cast<int64_t>(moves.moves.size() + moves.displaced.size());
    const double planned = now_us();
    kv.compacted(0);
    total += closed - start;
    report += reported - closed;
    plan += planned - reported;
    worst = std::max(worst, closed - start);
  }
  std::printf("%8d pages %5d sequences: counting %7.1f us a step (worst %8.1f), report %5.2f us, planning %7.1f us (%.1f pages moved)\n",
              num_pages, num_sequences, total / kSteps, worst, report / kSteps, plan / kSteps,
              static_cast<double>(moved) / kSteps);
  const double bytes = static_cast<double>(each) * num_sequences * kPageBytes;
  std::printf("         one decode step reads %.1f GB: %.0f us at 40 GB/s, %.0f us at 4 TB/s; counting and report are %.3f%% and %.3f%%\n",
              bytes / 1e9, bytes / 40e3, bytes / 4e6, 100 * (total + report) / kSteps / (bytes / 40e3),
              100 * (total + report) / kSteps / (bytes / 4e6));
  PageMap map;
  int32_t next = 0, slices = 0;
  double slice_us = 0;
  for (bool done = false; !done; ++slices) {
    const double start = now_us();
    done = extend_page_map(map, next, 65536, kv.pool());
    slice_us = std::max(slice_us, now_us() - start);
  }
  std::printf("         a map of all pages: %d slices, the longest %.0f us, %zu spans\n", slices, slice_us, map.spans.size());
}

}  // namespace
}  // namespace tinyserve

int main(int argc, char** argv) {
  const int32_t pages = argc > 1 ? std::atoi(argv[1]) : 1000000, sequences = argc > 2 ? std::atoi(argv[2]) : 256;
  if (pages < 10 * sequences || sequences < 1) {
    std::fprintf(stderr, "usage: bench_fragmentation [pages] [sequences]: at least 10 pages a sequence\n");
    return 1;
  }
  for (const bool compaction : {false, true}) {
    std::printf("compaction %s\n", compaction ? "on" : "off");
    tinyserve::measure(pages, sequences, compaction);
  }
}
