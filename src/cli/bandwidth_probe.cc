#include "cli/bandwidth_probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"

namespace tinyserve::cli {
namespace {

// Sums 64-byte blocks in eight independent chains. The type is the compiler's own vector, so each clone below gets the
// widest registers it may use and nothing else differs.
typedef uint64_t Block __attribute__((vector_size(64)));
constexpr int kChains = 8;
constexpr int64_t kGrain = 1 << 21;

inline __attribute__((always_inline)) uint64_t sum_blocks(const std::byte* begin, const std::byte* end) {
  Block sums[kChains] = {};
  for (const std::byte* p = begin; p + sizeof(sums) <= end; p += sizeof(sums)) {
    const Block* blocks = reinterpret_cast<const Block*>(p);
    for (int i = 0; i < kChains; ++i) sums[i] += blocks[i];
  }
  uint64_t total = 0;
  for (const Block& sum : sums)
    for (int lane = 0; lane < 8; ++lane) total += sum[lane];
  return total;
}

uint64_t sum_base(const std::byte* begin, const std::byte* end) { return sum_blocks(begin, end); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t sum_avx2(const std::byte* begin, const std::byte* end) {
  return sum_blocks(begin, end);
}
__attribute__((target("avx512f"))) uint64_t sum_avx512(const std::byte* begin, const std::byte* end) {
  return sum_blocks(begin, end);
}
#endif

using Sum = uint64_t (*)(const std::byte*, const std::byte*);
Sum best_sum() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return sum_avx512;
  if (__builtin_cpu_supports("avx2")) return sum_avx2;
#endif
  return sum_base;
}

}  // namespace

BandwidthProbe::BandwidthProbe(ThreadPool& pool, size_t size_bytes) : pool_(pool), buffer_(size_bytes) {
  // Untouched pages all map to one page of zeros, which would be read from the cache.
  pool_.parallel_for(static_cast<int64_t>(size_bytes), kGrain, [&](int64_t begin, int64_t end, int) {
    std::memset(buffer_.data() + begin, 1, static_cast<size_t>(end - begin));
  });
}

double BandwidthProbe::measure(int repetitions) {
  const Sum sum = best_sum();
  std::atomic<uint64_t> total{0};
  double fastest = 0;
  for (int r = 0; r < repetitions; ++r) {
    const auto start = std::chrono::steady_clock::now();
    pool_.parallel_for(static_cast<int64_t>(buffer_.size()), kGrain, [&](int64_t begin, int64_t end, int) {
      total.fetch_add(sum(buffer_.data() + begin, buffer_.data() + end), std::memory_order_relaxed);
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    fastest = std::max(fastest, static_cast<double>(buffer_.size()) / seconds);
  }
  // The sum has to be used, or the reads could be left out.
  if (total.load() != 0) best_ = std::max(best_, fastest);
  return fastest;
}

}  // namespace tinyserve::cli
