#include "kv/page_hash.h"

#include <bit>
#include <cstring>
#include <random>

#include "base/check.h"

namespace tinyserve {
namespace {

static_assert(std::endian::native == std::endian::little, "words are read as they lie in memory");

struct SipState {
  uint64_t v0, v1, v2, v3;
  void rounds(int n) {
    while (n-- > 0) {
      v0 += v1, v1 = std::rotl(v1, 13) ^ v0, v0 = std::rotl(v0, 32);
      v2 += v3, v3 = std::rotl(v3, 16) ^ v2;
      v0 += v3, v3 = std::rotl(v3, 21) ^ v0;
      v2 += v1, v1 = std::rotl(v1, 17) ^ v2, v2 = std::rotl(v2, 32);
    }
  }
  void absorb(uint64_t word) {
    v3 ^= word;
    rounds(2);
    v0 ^= word;
  }
  uint64_t result() const { return v0 ^ v1 ^ v2 ^ v3; }
};

}  // namespace

PageHash siphash128(const HashKey& key, std::span<const std::byte> message) {
  SipState s{key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du ^ 0xee, key[0] ^ 0x6c7967656e657261u,
             key[1] ^ 0x7465646279746573u};
  size_t i = 0;
  for (; i + 8 <= message.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, message.data() + i, 8);
    s.absorb(word);
  }
  uint64_t last = static_cast<uint64_t>(message.size()) << 56;
  for (size_t j = i; j < message.size(); ++j) last |= static_cast<uint64_t>(message[j]) << (8 * (j - i));
  s.absorb(last);
  PageHash hash;
  s.v2 ^= 0xee;
  s.rounds(4);
  hash.low = s.result();
  s.v1 ^= 0xdd;
  s.rounds(4);
  hash.high = s.result();
  return hash;
}

PageHasher::PageHasher() {
  std::random_device device;
  for (uint64_t& word : key_) word = uint64_t{device()} << 32 | device();
}

PageHash PageHasher::root(std::string_view salt) const {
  if (salt.empty()) return {};
  // Another key than pages have: no salt can be written that is the message of some page.
  return siphash128({key_[0] ^ 0x9e3779b97f4a7c15u, key_[1]}, std::as_bytes(std::span(salt)));
}

PageHash PageHasher::chain(const PageHash& parent, std::span<const int32_t> tokens) const {
  constexpr size_t kMaxTokens = 256;
  TS_CHECK(tokens.size() <= kMaxTokens, "page too large to hash");
  std::array<std::byte, sizeof(PageHash) + kMaxTokens * sizeof(int32_t)> message;
  std::memcpy(message.data(), &parent, sizeof parent);
  std::memcpy(message.data() + sizeof parent, tokens.data(), tokens.size_bytes());
  return siphash128(key_, std::span(message).first(sizeof parent + tokens.size_bytes()));
}

}  // namespace tinyserve
