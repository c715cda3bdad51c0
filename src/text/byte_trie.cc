#include "text/byte_trie.h"

#include "base/error.h"

namespace tinyserve {

ByteTrie::ByteTrie() : slots_(64), mask_(63), values_(1, -1) { first_.fill(kNone); }

void ByteTrie::grow() {
  std::vector<uint64_t> old(slots_.size() * 2);
  old.swap(slots_);
  mask_ = slots_.size() - 1;
  for (uint64_t entry : old) {
    if (entry == 0) continue;
    size_t slot = hash(entry >> 28) & mask_;
    while (slots_[slot] != 0) slot = (slot + 1) & mask_;
    slots_[slot] = entry;
  }
}

int32_t ByteTrie::insert(std::string_view key, int32_t value) {
  uint32_t node = kRoot;
  for (unsigned char byte : key) {
    uint32_t child = step(node, byte);
    if (child == kNone) {
      child = static_cast<uint32_t>(values_.size());
      if (child > kChildMask) throw InputError("the vocabulary is too large: its trie would have more than 2^28 nodes");
      values_.push_back(-1);
      if (node == kRoot) {
        first_[byte] = child;
      } else {
        if (2 * ++used_ > slots_.size()) grow();
        const uint64_t entry_key = uint64_t{node} << 8 | byte;
        size_t slot = hash(entry_key) & mask_;
        while (slots_[slot] != 0) slot = (slot + 1) & mask_;
        slots_[slot] = entry_key << 28 | child;
      }
    }
    node = child;
  }
  const int32_t before = values_[node];
  values_[node] = value;
  return before;
}

size_t ByteTrie::longest_prefix(std::string_view text, int32_t& value) const {
  size_t longest = 0;
  uint32_t node = kRoot;
  for (size_t i = 0; i < text.size(); ++i) {
    node = step(node, static_cast<unsigned char>(text[i]));
    if (node == kNone) break;
    if (values_[node] >= 0) longest = i + 1, value = values_[node];
  }
  return longest;
}

}  // namespace tinyserve
