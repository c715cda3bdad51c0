#include "text/charsmap.h"

#include <fmt/format.h>

#include <cstring>

#include "base/error.h"
#include "text/unicode.h"
#include "text/unicode_normalize.h"

namespace tinyserve {
namespace {

// darts-clone's unit: either a value (bit 31) or a label, a flag for "a key ends here", and an offset to the children.
bool is_value(uint32_t unit) { return unit >> 31; }
bool has_leaf(uint32_t unit) { return unit >> 8 & 1; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FF; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }

}  // namespace

Charsmap::Charsmap(std::string_view blob, std::string_view where) {
  const auto fail = [&](std::string_view why) { throw InputError(fmt::format("{} {}", where, why)); };
  uint32_t trie_bytes = 0;
  if (blob.size() < 4) fail("is cut short");
  std::memcpy(&trie_bytes, blob.data(), 4);
  blob.remove_prefix(4);
  if (trie_bytes > blob.size() || trie_bytes % 4 != 0 || trie_bytes == 0)
    fail("does not hold the trie that it announces");
  units_.resize(trie_bytes / 4);
  std::memcpy(units_.data(), blob.data(), trie_bytes);
  replacements_ = blob.substr(trie_bytes);
  if (!unicode::is_valid_utf8(replacements_)) fail("has replacements that are not valid UTF-8");
  const auto check_value = [&](uint32_t value) {
    if (value >= replacements_.size()) fail("has a rule whose replacement lies outside");
    // A replacement begins at a character, not within one.
    if ((static_cast<unsigned char>(replacements_[value]) & 0xC0) == 0x80)
      fail("has a rule that points into a character");
  };
  for (size_t i = 0; i < units_.size(); ++i) {
    const uint32_t unit = units_[i];
    if (is_value(unit)) {
      check_value(value_of(unit));
      continue;
    }
    // Children of unit i stand at i ^ offset ^ label, its value at i ^ offset.
    if (((i ^ offset_of(unit)) | 0xFF) >= units_.size()) fail("has a trie unit that points outside");
    if (has_leaf(unit)) check_value(value_of(units_[i ^ offset_of(unit)]));
  }
}

std::optional<std::string_view> Charsmap::find(std::string_view text) const {
  size_t at = offset_of(units_[0]);
  for (unsigned char byte : text) {
    if (byte == 0) break;
    at ^= byte;
    const uint32_t unit = units_[at];
    if (label_of(unit) != byte) break;
    at ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    const std::string_view found = std::string_view(replacements_).substr(value_of(units_[at]));
    return found.substr(0, found.find('\0'));
  }
  return std::nullopt;
}

std::string Charsmap::apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    size_t cluster = unicode::grapheme_length(text);
    if (cluster < 6) {
      if (const auto found = find(text.substr(0, cluster))) {
        out += *found;
        text.remove_prefix(cluster);
        continue;
      }
    }
    while (cluster > 0) {
      const size_t n = unicode::char_length(text[0]);
      const auto found = find(text.substr(0, n));
      out += found ? *found : text.substr(0, n);
      text.remove_prefix(n);
      cluster -= n;
    }
  }
  return out;
}

}  // namespace tinyserve
