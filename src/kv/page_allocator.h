#pragma once
// Which free pages a request gets: a policy, apart from the bookkeeping of PagePool. A page is free when nobody refers
// to it; a free page is *cached* while its content can still serve a prefix hit, else *empty*. Taking a cached page
// evicts its content, so the allocator is the eviction policy as well.
//
// A policy is one file in kv/placement/ and one line in its registry (kv/placement.h).

#include <cstdint>
#include <span>
#include <string_view>

namespace tinyserve {

class PagePool;
class PlacementObjective;

/// What the pool knows about a request when it asks for places.
struct PageRequest {
  int32_t count = 1;
  /// Physical pages the sequence has already, in logical order (empty for a new one): a policy that wants runs grows
  /// them in place and keeps other sequences at a distance. Pages shared with others count.
  std::span<const int32_t> sequence_pages = {};
  /// Who asks: uid of the sequence, which becomes the pages' owner. 0: nobody in particular.
  uint64_t sequence = 0;
  /// How many pages the sequence is expected to ask for after these (a growth predictor's guess). Room for them is kept
  /// behind the pages chosen while nobody needs it; it never makes a request fail.
  int32_t expected_pages = 0;
};

/// Picks among the free pages of the pool it was attached to. Single threaded.
class PageAllocator {
 public:
  virtual ~PageAllocator() = default;
  virtual std::string_view name() const = 0;
  /// Comes once, before all else: the pool, with all its pages free and empty. Its books can be read at any time.
  virtual void attach(const PagePool& pool) = 0;
  /// Free pages [first, first + count) are about to be taken; those that are cached keep their mark until after this.
  virtual void on_take(int32_t /*first*/, int32_t /*count*/) {}
  /// Pages [first, first + count) have become free, cached or empty.
  virtual void on_put(int32_t /*first*/, int32_t /*count*/) {}
  /// A free cached page lost its content and is empty now.
  virtual void on_forget(int32_t /*page*/) {}
  /// Whether it wants to hear of single pages in the order in which they are released, too.
  virtual bool wants_releases() const { return false; }
  /// The last reference to `page` went away. Comes before on_put.
  virtual void on_release(int32_t /*page*/) {}
  /// Writes request.count > 0 different free pages to `out` (the pool has that many). Must not fail: pages need no
  /// contiguity to be correct.
  virtual void choose(const PageRequest& request, std::span<int32_t> out) = 0;
  /// The pages are taken now, and stand after what the sequence had: the time to keep room behind them. The pool's
  /// other books may be changed by nobody but itself.
  virtual void on_allocated(const PageRequest& /*request*/, std::span<const int32_t> /*pages*/) {}
  /// What it weighs placements by; null: nothing. For tests and reports.
  virtual const PlacementObjective* objective() const { return nullptr; }
  /// TS_CHECKs that its own books agree with the pool's: state[page] is 0 used, 1 cached, 2 empty. For tests.
  virtual void check_invariants(std::span<const uint8_t> /*state*/) const {}
};

}  // namespace tinyserve
