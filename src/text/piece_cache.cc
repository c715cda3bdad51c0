#include "text/piece_cache.h"

namespace tinyserve {

PieceCache::PieceCache() : entries_(1024) {}

bool PieceCache::find(std::string_view piece, uint64_t hash, std::vector<int32_t>& out) const {
  for (size_t slot = hash & (entries_.size() - 1);; slot = (slot + 1) & (entries_.size() - 1)) {
    const Entry& e = entries_[slot];
    if (e.text_length == 0) return false;
    if (e.hash != hash || std::string_view(text_).substr(e.text_begin, e.text_length) != piece) continue;
    out.insert(out.end(), ids_.begin() + e.ids_begin, ids_.begin() + e.ids_begin + e.ids_length);
    return true;
  }
}

void PieceCache::insert(std::string_view piece, uint64_t hash, std::span<const int32_t> ids) {
  if (piece.empty() || piece.size() > kMaxPieceBytes || ids.size() > UINT16_MAX) return;
  if (count_ == kMaxPieces) clear();
  if (2 * (count_ + 1) > entries_.size()) grow();
  size_t slot = hash & (entries_.size() - 1);
  while (entries_[slot].text_length != 0) slot = (slot + 1) & (entries_.size() - 1);
  entries_[slot] = {hash, static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(ids_.size()),
                    static_cast<uint16_t>(piece.size()), static_cast<uint16_t>(ids.size())};
  text_ += piece;
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++count_;
}

void PieceCache::clear() {
  entries_.assign(entries_.size(), Entry{});
  text_.clear();
  ids_.clear();
  count_ = 0;
}

void PieceCache::grow() {
  std::vector<Entry> old(entries_.size() * 2);
  old.swap(entries_);
  for (const Entry& e : old) {
    if (e.text_length == 0) continue;
    size_t slot = e.hash & (entries_.size() - 1);
    while (entries_[slot].text_length != 0) slot = (slot + 1) & (entries_.size() - 1);
    entries_[slot] = e;
  }
}

}  // namespace tinyserve
