#include "text/vocabulary.h"

#include <bit>

#include "base/error.h"

namespace tinyserve {

void Vocabulary::reserve(size_t count, size_t bytes) {
  bytes_.reserve(bytes);
  entries_.reserve(count);
  rehash(std::bit_ceil(2 * count + 16));
}

void Vocabulary::rehash(size_t slots) {
  slots_.assign(slots, -1);
  for (size_t id = 0; id < entries_.size(); ++id) {
    if (entries_[id].length < 0) continue;
    size_t slot = hash_bytes(token(static_cast<int32_t>(id))) & (slots - 1);
    while (slots_[slot] >= 0) slot = (slot + 1) & (slots - 1);
    slots_[slot] = static_cast<int32_t>(id);
  }
}

bool Vocabulary::add(std::string_view token, int32_t id) {
  if (has(id) || find(token) >= 0) return false;
  if (bytes_.size() + token.size() > UINT32_MAX) throw InputError("the vocabulary's strings take more than 4 GiB");
  if (slots_.size() < 2 * (count_ + 1)) rehash(std::max<size_t>(16, 2 * slots_.size()));
  if (static_cast<size_t>(id) >= entries_.size()) entries_.resize(static_cast<size_t>(id) + 1);
  entries_[id] = {static_cast<uint32_t>(bytes_.size()), static_cast<int32_t>(token.size())};
  bytes_ += token;
  size_t slot = hash_bytes(token) & (slots_.size() - 1);
  while (slots_[slot] >= 0) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = id;
  ++count_;
  return true;
}

int32_t Vocabulary::find(std::string_view token_text) const {
  if (slots_.empty()) return -1;
  for (size_t slot = hash_bytes(token_text) & (slots_.size() - 1);; slot = (slot + 1) & (slots_.size() - 1)) {
    const int32_t id = slots_[slot];
    if (id < 0) return -1;
    if (token(id) == token_text) return id;
  }
}

}  // namespace tinyserve
