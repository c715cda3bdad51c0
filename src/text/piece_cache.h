#pragma once
// Ids of pieces seen before. Words repeat: on prose nine pieces in ten are found here.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tinyserve {

/// Bounded: 32,768 pieces of up to 128 bytes; starts again from empty when full. One thread at a time.
class PieceCache {
 public:
  static constexpr size_t kMaxPieceBytes = 128;

  PieceCache();
  /// Appends the ids of `piece` to `out` and returns true if it is here.
  bool find(std::string_view piece, uint64_t hash, std::vector<int32_t>& out) const;
  /// Remembers a piece (of at most kMaxPieceBytes) that find() did not find.
  void insert(std::string_view piece, uint64_t hash, std::span<const int32_t> ids);

 private:
  static constexpr size_t kMaxPieces = 32'768;
  struct Entry {
    uint64_t hash = 0;
    uint32_t text_begin = 0, ids_begin = 0;
    uint16_t text_length = 0, ids_length = 0;  // text_length 0: free (no piece is empty)
  };
  void clear();
  void grow();

  std::vector<Entry> entries_;
  size_t count_ = 0;
  std::string text_;
  std::vector<int32_t> ids_;
};

}  // namespace tinyserve
