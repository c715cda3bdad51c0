#pragma once
// Read bandwidth of a pool's threads, for benchmarks that state how near to it they come.

#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"

namespace tinyserve {

inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Reads a buffer far larger than any cache; each thread its own contiguous part.
class Bandwidth {
 public:
  explicit Bandwidth(ThreadPool& pool) : pool_(pool), buffer_(size_t{256} << 20), sums_(pool.num_threads()) {
    std::memset(buffer_.data(), 1, buffer_.size());
  }

  /// `clock` counts seconds.
  double gb_per_s(double (*clock)() = now_s) {
    const double begin = clock();
    pool_.parallel_for(static_cast<int64_t>(buffer_.size() / 8), 512, [&](int64_t from, int64_t to, int thread) {
      const uint64_t* p = buffer_.as<uint64_t>();
      uint64_t sums[32] = {};  // enough independent sums for the compiler to use vectors
      for (int64_t i = from; i + 32 <= to; i += 32)
        for (int j = 0; j < 32; ++j) sums[j] += p[i + j];
      for (uint64_t s : sums) sums_[thread] += s;
    });
    return static_cast<double>(buffer_.size()) / 1e9 / (clock() - begin);
  }

 private:
  ThreadPool& pool_;
  AlignedBuffer buffer_;
  std::vector<uint64_t> sums_;
};

}  // namespace tinyserve
