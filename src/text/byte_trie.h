#pragma once
// A trie over bytes in one hash table: for added tokens and for the pieces of a unigram model.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tinyserve {

class ByteTrie {
 public:
  static constexpr uint32_t kRoot = 0;
  static constexpr uint32_t kNone = 0xFFFFFFFF;

  ByteTrie();
  /// Sets the value (>= 0) of `key` (not empty) and returns the value it had before, -1 if none.
  /// Throws InputError when there are more than 2^28 nodes.
  int32_t insert(std::string_view key, int32_t value);
  bool empty() const { return values_.size() == 1; }

  /// The node behind `byte`, or kNone.
  uint32_t step(uint32_t node, unsigned char byte) const {
    if (node == kRoot) return first_[byte];
    const uint64_t key = uint64_t{node} << 8 | byte;
    for (size_t slot = hash(key) & mask_;; slot = (slot + 1) & mask_) {
      const uint64_t entry = slots_[slot];
      if (entry == 0) return kNone;
      if (entry >> 28 == key) return static_cast<uint32_t>(entry & kChildMask);
    }
  }
  /// The value of the key that ends at `node`, -1 if none does.
  int32_t value(uint32_t node) const { return values_[node]; }
  /// Whether any key begins with `byte`.
  bool begins(unsigned char byte) const { return first_[byte] != kNone; }
  /// The length of the longest key that `text` begins with, and its value; 0 when there is none.
  size_t longest_prefix(std::string_view text, int32_t& value) const;

 private:
  static constexpr uint64_t kChildMask = (uint64_t{1} << 28) - 1;
  static uint64_t hash(uint64_t key) {
    key *= 0x9E3779B97F4A7C15u;
    return key ^ key >> 29;
  }
  void grow();

  std::array<uint32_t, 256> first_;  // children of the root
  std::vector<uint64_t> slots_;      // node << 36 | byte << 28 | child; 0 is free (no child is the root)
  size_t mask_ = 0, used_ = 0;
  std::vector<int32_t> values_;  // [nodes]
};

}  // namespace tinyserve
