#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace tinyserve {

/// A set of integers in [0, size): a bitmap, and above it bitmaps that say which words below hold anything, 64 to 1. The
/// nearest member on either side is found in O(log64 size): 4 levels for 10^7, and the upper ones stay in L1.
class BitTree {
 public:
  explicit BitTree(int32_t size) : size_(size) {
    for (int64_t n = size;; n = (n + 63) / 64) {
      levels_.emplace_back(static_cast<size_t>((n + 63) / 64), 0);
      if (n <= 64) break;
    }
  }

  bool test(int32_t i) const { return levels_[0][i >> 6] >> (i & 63) & 1; }
  void set(int32_t i) { set_range(i, 1); }
  void clear(int32_t i) { clear_range(i, 1); }

  void set_range(int32_t first, int32_t count) {
    for (int64_t begin = first, end = int64_t{first} + count; begin < end;) {
      const int64_t word = begin >> 6, stop = std::min(end, (word + 1) << 6);
      uint64_t& bits = levels_[0][word];
      if (bits == 0) raise(word);
      bits |= mask(begin, stop);
      begin = stop;
    }
  }
  void clear_range(int32_t first, int32_t count) {
    for (int64_t begin = first, end = int64_t{first} + count; begin < end;) {
      const int64_t word = begin >> 6, stop = std::min(end, (word + 1) << 6);
      uint64_t& bits = levels_[0][word];
      const bool any = bits != 0;
      bits &= ~mask(begin, stop);
      if (any && bits == 0) lower(word);
      begin = stop;
    }
  }

  /// The smallest member >= i; `size` when there is none.
  int32_t next(int32_t i) const {
    if (i >= size_) return size_;
    int64_t at = i;
    for (size_t level = 0; level < levels_.size(); ++level, ++at) {
      const int64_t word = at >> 6;
      if (word >= static_cast<int64_t>(levels_[level].size())) return size_;
      const uint64_t bits = levels_[level][word] & (~uint64_t{0} << (at & 63));
      if (bits == 0) {
        at = word;
        continue;
      }
      at = word << 6 | std::countr_zero(bits);
      while (level > 0) at = at << 6 | std::countr_zero(levels_[--level][at]);
      return static_cast<int32_t>(at);
    }
    return size_;
  }
  /// The largest member <= i; -1 when there is none.
  int32_t previous(int32_t i) const {
    int64_t at = i;
    for (size_t level = 0; level < levels_.size() && at >= 0; ++level, --at) {
      const int64_t word = at >> 6;
      const uint64_t bits = levels_[level][word] & (~uint64_t{0} >> (63 - (at & 63)));
      if (bits == 0) {
        at = word;
        continue;
      }
      at = word << 6 | (63 - std::countl_zero(bits));
      while (level > 0) {
        const uint64_t below = levels_[--level][at];
        at = at << 6 | (63 - std::countl_zero(below));
      }
      return static_cast<int32_t>(at);
    }
    return -1;
  }
  /// Members among the eight from i on, as bits; none beyond `size`.
  uint32_t byte_at(int32_t i) const {
    const size_t word = i >> 6, shift = i & 63;
    if (word >= levels_[0].size()) return 0;
    uint64_t bits = levels_[0][word] >> shift;
    if (shift > 56 && word + 1 < levels_[0].size()) bits |= levels_[0][word + 1] << (64 - shift);
    return bits & 0xFF;
  }
  /// How many members lie in [first, first + count).
  int32_t count(int32_t first, int32_t count) const {
    int32_t total = 0;
    for (int64_t begin = first, end = int64_t{first} + count; begin < end;) {
      const int64_t word = begin >> 6, stop = std::min(end, (word + 1) << 6);
      total += std::popcount(levels_[0][word] & mask(begin, stop));
      begin = stop;
    }
    return total;
  }

 private:
  /// Bits [begin, end) of one word.
  static uint64_t mask(int64_t begin, int64_t end) {
    return (~uint64_t{0} >> (64 - (end - begin))) << (begin & 63);
  }
  void raise(int64_t word) {
    for (size_t level = 1; level < levels_.size(); ++level, word >>= 6) {
      uint64_t& bits = levels_[level][word >> 6];
      const bool any = bits != 0;
      bits |= uint64_t{1} << (word & 63);
      if (any) return;
    }
  }
  void lower(int64_t word) {
    for (size_t level = 1; level < levels_.size(); ++level, word >>= 6) {
      uint64_t& bits = levels_[level][word >> 6];
      bits &= ~(uint64_t{1} << (word & 63));
      if (bits != 0) return;
    }
  }

  int32_t size_;
  std::vector<std::vector<uint64_t>> levels_;
};

}  // namespace tinyserve
