#include <numeric>
#include <vector>

#include "base/check.h"
#include "kv/page_pool.h"
#include "kv/placement/policies.h"

namespace tinyserve {
namespace {

/// A list of the free pages and the place of each in it: any page comes with the same probability.
class Random final : public PageAllocator {
 public:
  std::string_view name() const override { return "random"; }

  void attach(const PagePool& pool) override {
    free_.resize(pool.num_pages());
    std::iota(free_.begin(), free_.end(), 0);
    place_ = free_;
  }
  void on_put(int32_t first, int32_t count) override {
    for (int32_t page = first; page < first + count; ++page) {
      place_[page] = static_cast<int32_t>(free_.size());
      free_.push_back(page);
    }
  }
  void on_take(int32_t first, int32_t count) override {
    for (int32_t page = first; page < first + count; ++page) {
      swap_places(place_[page], free_.size() - 1);
      free_.pop_back();
    }
  }

  void choose(const PageRequest&, std::span<int32_t> out) override {
    TS_CHECK(out.size() <= free_.size(), "more pages asked for than are free");
    size_t left = free_.size();
    for (int32_t& page : out) {  // the chosen ones gather at the end
      swap_places(below(left), left - 1);
      page = free_[--left];
    }
  }

  void check_invariants(std::span<const uint8_t> state) const override {
    for (size_t i = 0; i < free_.size(); ++i)
      TS_CHECK(state[free_[i]] != 0 && place_[free_[i]] == static_cast<int32_t>(i), "broken list of free pages");
    size_t free = 0;
    for (uint8_t s : state) free += s != 0;
    TS_CHECK(free == free_.size(), "the list is not of the free pages");
  }

 private:
  void swap_places(size_t a, size_t b) {
    std::swap(free_[a], free_[b]);
    place_[free_[a]] = static_cast<int32_t>(a);
    place_[free_[b]] = static_cast<int32_t>(b);
  }
  /// xorshift64*, the same sequence in every run.
  size_t below(size_t n) {
    random_ ^= random_ >> 12;
    random_ ^= random_ << 25;
    random_ ^= random_ >> 27;
    return static_cast<size_t>((random_ * 0x2545F4914F6CDD1Dull >> 32) * n >> 32);
  }

  std::vector<int32_t> free_, place_;
  uint64_t random_ = 0x9E3779B97F4A7C15ull;
};

}  // namespace

std::unique_ptr<PageAllocator> make_random(const PlacementConfig&) { return std::make_unique<Random>(); }

}  // namespace tinyserve
