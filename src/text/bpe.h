#pragma once
// Byte-pair encoding (Sennrich et al. 2016) as the `tokenizers` package does it: the pair of lowest rank, leftmost
// first, is merged until none is left.

#include <array>
#include <optional>
#include <span>

#include "text/token_model.h"
#include "text/vocabulary.h"

namespace tinyserve {

/// (left id, right id) -> (rank, merged id), in one open-addressing table.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  void reserve(size_t count);
  /// A later rule for the same pair takes the place of an earlier one.
  void set(int32_t left, int32_t right, Merge merge);
  const Merge* find(int32_t left, int32_t right) const {
    if (slots_.empty()) return nullptr;
    const uint64_t key = pair_key(left, right);
    for (size_t slot = hash(key) & (slots_.size() - 1);; slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot].key == key) return &slots_[slot].merge;
      if (slots_[slot].key == kFree) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};
  struct Slot {
    uint64_t key = kFree;
    Merge merge{};
  };
  static uint64_t pair_key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  static uint64_t hash(uint64_t key) {
    key = (key ^ key >> 31) * 0x9E3779B97F4A7C15u;
    return key ^ key >> 32;
  }
  std::vector<Slot> slots_;
  size_t count_ = 0;
};

class BpeModel : public TokenModel {
 public:
  struct Options {
    std::optional<std::string> unk_token;
    std::string continuing_subword_prefix, end_of_word_suffix;
    bool fuse_unk = false;       ///< a run of unknown characters is one unknown token
    bool byte_fallback = false;  ///< an unknown character is its bytes' tokens <0x..>, if there are such
    bool ignore_merges = false;  ///< a piece that is a token is that token
    bool byte_level = false;     ///< pieces are raw bytes
  };
  BpeModel(Vocabulary vocabulary, MergeTable merges, Options options, bool words_stand_alone);

  void encode(std::string_view piece, EncodeScratch& scratch, std::vector<int32_t>& out) const override;
  int32_t find(std::string_view token) const override { return vocabulary_.find(token); }
  bool has(int32_t id) const override { return vocabulary_.has(id); }
  std::string_view token(int32_t id) const override { return vocabulary_.token(id); }
  size_t size() const override { return vocabulary_.size(); }
  int32_t id_end() const override { return vocabulary_.id_end(); }

 private:
  void encode_unit(std::string_view unit, EncodeScratch& scratch, std::vector<int32_t>& out) const;
  void merge(std::string_view unit, EncodeScratch& scratch, std::vector<int32_t>& out) const;
  void collect_symbols(std::string_view unit, std::vector<EncodeScratch::Symbol>& symbols) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  Options options_;
  // No merge joins "x" and "▁y": a text without pre-tokenizer may be cut into words, each found in the cache.
  bool words_stand_alone_;
  std::array<int32_t, 256> byte_ids_;        // byte level: id of a byte's character
  std::array<int32_t, 256> fallback_ids_;    // id of <0x..>
  int32_t unk_id_ = -1;
};

/// A model whose merge rules are lines "left right" in order of rank. Throws InputError naming `where` and the rule.
std::unique_ptr<TokenModel> make_bpe_model(Vocabulary vocabulary, std::span<const std::string_view> rules,
                                           BpeModel::Options options, std::string_view where);

}  // namespace tinyserve
