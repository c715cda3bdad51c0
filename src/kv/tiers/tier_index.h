#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kv/page_hash.h"

namespace tinyserve {

class TierIndex;

/// A slot that keeps its page while the reference lives.
class SlotRef {
 public:
  SlotRef() = default;
  SlotRef(SlotRef&& other) noexcept : index_(std::exchange(other.index_, nullptr)), slot_(other.slot_) {}
  SlotRef& operator=(SlotRef&& other) noexcept {
    if (this != &other) {
      reset();
      index_ = std::exchange(other.index_, nullptr);
      slot_ = other.slot_;
    }
    return *this;
  }
  ~SlotRef() { reset(); }
  explicit operator bool() const { return index_ != nullptr; }
  int32_t slot() const { return slot_; }
  void reset();

 private:
  friend class TierIndex;
  SlotRef(TierIndex* index, int32_t slot) : index_(index), slot_(slot) {}
  TierIndex* index_ = nullptr;
  int32_t slot_ = -1;
};

/// Which page lies in which slot of a tier. New pages get the lowest empty slots, then those of the pages that were
/// longest unused; pages that came together lie and go together, so both are runs, mostly. Nothing in a tier is in use
/// for longer than a copy takes: unlike the cache it needs no policy of placement. O(1) a page. Single threaded.
class TierIndex {
 public:
  /// Told before a slot is taken for something else; its bytes are still there.
  using OnEvict = std::function<void(int32_t slot, const PageHash& name)>;
  /// Slots from `available` on are out of reach until set_available().
  TierIndex(int32_t num_slots, int32_t available, OnEvict on_evict = {});
  ~TierIndex();
  TierIndex(const TierIndex&) = delete;
  TierIndex& operator=(const TierIndex&) = delete;

  int32_t num_slots() const { return static_cast<int32_t>(slots_.size()); }
  int32_t available() const { return available_; }
  void set_available(int32_t available);  ///< grows only
  int32_t num_pages() const { return static_cast<int32_t>(by_name_.size()); }
  int32_t num_empty() const { return num_empty_; }  ///< of the available ones
  /// The slot with this page, or -1.
  int32_t find(const PageHash& name) const;
  SlotRef pin(int32_t slot);
  /// Up to `count` slots for new pages, fewer when the rest is pinned, by number; what was there is evicted.
  void allocate(int32_t count, std::vector<SlotRef>& out);
  /// Names the page in a slot that the caller holds. False when another slot has it.
  bool insert(const PageHash& name, int32_t slot);
  /// Puts a page into an empty slot, as the one used last.
  void restore(const PageHash& name, int32_t slot);
  /// Takes the name away; the slot is empty once nobody holds it.
  void forget(int32_t slot);
  /// Gives references up, the last first: of a chain that lies there, the end is evicted before the beginning.
  static void release(std::vector<SlotRef>& refs);

  /// TS_CHECKs that names, uses and empty slots agree. O(num_slots); for tests.
  void check_invariants() const;

 private:
  friend class SlotRef;
  struct Slot {
    PageHash name;
    int32_t refs = 0;
    int32_t older = -1, newer = -1;  // among unpinned named slots
    bool named = false;
  };
  struct Hash {
    size_t operator()(const PageHash& name) const { return name.low; }
  };
  void unpin(int32_t slot);
  void link(int32_t slot);
  void unlink(int32_t slot);
  void set_empty(int32_t slot, bool empty);
  int32_t take_empty();

  OnEvict on_evict_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> empty_;  // bit per slot
  size_t first_empty_word_ = 0;  // none before it
  int32_t available_ = 0, num_empty_ = 0;
  int32_t oldest_ = -1, newest_ = -1;
  int32_t num_pins_ = 0;
  std::unordered_map<PageHash, int32_t, Hash> by_name_;
};

inline void SlotRef::reset() {
  if (index_) std::exchange(index_, nullptr)->unpin(slot_);
}

}  // namespace tinyserve
