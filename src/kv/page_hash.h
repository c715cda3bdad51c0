#pragma once
// Names for page contents. K and V of a page depend on its tokens and on every token before it, so a page is named by a
// hash chained over the pages up to it. Whoever could construct two prompts with the same name could read another
// client's cache; therefore a keyed 128-bit pseudo-random function (SipHash-2-4-128) with a key drawn per process:
// equal names mean equal tokens, up to chance of 2^-64 after 2^32 pages, hostile clients included.

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

namespace tinyserve {

struct PageHash {
  uint64_t low = 0, high = 0;
  bool operator==(const PageHash&) const = default;
};

using HashKey = std::array<uint64_t, 2>;

/// SipHash-2-4 with 128-bit output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", and the authors' 128-bit
/// variant).
PageHash siphash128(const HashKey& key, std::span<const std::byte> message);

class PageHasher {
 public:
  PageHasher();  ///< a random key
  explicit PageHasher(const HashKey& key) : key_(key) {}
  /// Where chains of requests with this salt begin; {} for the empty salt. Who does not know the salt cannot find a page
  /// of such a chain, nor learn that there is one.
  PageHash root(std::string_view salt) const;
  /// Name of the page with these tokens whose predecessor has the name `parent` (a root for the first page).
  PageHash chain(const PageHash& parent, std::span<const int32_t> tokens) const;

 private:
  HashKey key_;
};

}  // namespace tinyserve
