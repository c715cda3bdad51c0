#pragma once
// The strings of a vocabulary by id and back.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tinyserve {

class Vocabulary {
 public:
  /// Room for `count` tokens of `bytes` bytes in all.
  void reserve(size_t count, size_t bytes);
  /// Gives `id` (>= 0) the string `token`. Returns false, and changes nothing, when the string or the id is taken.
  bool add(std::string_view token, int32_t id);

  /// -1 when the vocabulary has no such token.
  int32_t find(std::string_view token) const;
  bool has(int32_t id) const { return id >= 0 && static_cast<size_t>(id) < entries_.size() && entries_[id].length >= 0; }
  /// The string of an id that has() accepts.
  std::string_view token(int32_t id) const { return {bytes_.data() + entries_[id].begin, size_t(entries_[id].length)}; }
  size_t size() const { return count_; }
  /// One past the highest id.
  int32_t id_end() const { return static_cast<int32_t>(entries_.size()); }

 private:
  struct Entry {
    uint32_t begin = 0;
    int32_t length = -1;  // -1: no token has this id
  };
  void rehash(size_t slots);

  std::string bytes_;
  std::vector<Entry> entries_;  // by id
  std::vector<int32_t> slots_;  // id, -1 free
  size_t count_ = 0;
};

/// Hash of a short string; also for the piece cache.
inline uint64_t hash_bytes(std::string_view text) {
  uint64_t h = 0x9E3779B97F4A7C15u ^ text.size();
  const char* p = text.data();
  size_t n = text.size();
  const auto mix = [&h](uint64_t word) {
    const auto product = static_cast<unsigned __int128>(h ^ word) * 0xA0761D6478BD642Fu;
    h = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t word;
    __builtin_memcpy(&word, p, 8);
    mix(word);
  }
  if (n > 0) {
    uint64_t word = 0;
    __builtin_memcpy(&word, p, n);
    mix(word);
  }
  return h ^ h >> 32;
}

}  // namespace tinyserve
