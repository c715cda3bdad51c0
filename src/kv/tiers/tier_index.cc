#include "kv/tiers/tier_index.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace tinyserve {

TierIndex::TierIndex(int32_t num_slots, int32_t available, OnEvict on_evict)
    : on_evict_(std::move(on_evict)), slots_(num_slots), empty_((num_slots + 63) / 64, 0) {
  set_available(available);
}

TierIndex::~TierIndex() { TS_CHECK(num_pins_ == 0, "a slot's reference outlives its tier"); }

void TierIndex::set_available(int32_t available) {
  TS_CHECK(available >= available_ && available <= num_slots());
  while (available_ < available) set_empty(available_++, true);
}

int32_t TierIndex::find(const PageHash& name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? -1 : at->second;
}

void TierIndex::set_empty(int32_t slot, bool empty) {
  const size_t word = slot / 64;
  const uint64_t bit = uint64_t{1} << slot % 64;
  if (empty) {
    empty_[word] |= bit;
    first_empty_word_ = std::min(first_empty_word_, word);
  } else {
    empty_[word] &= ~bit;
  }
  num_empty_ += empty ? 1 : -1;
}

int32_t TierIndex::take_empty() {
  while (empty_[first_empty_word_] == 0) ++first_empty_word_;
  const auto slot = static_cast<int32_t>(first_empty_word_ * 64 + std::countr_zero(empty_[first_empty_word_]));
  set_empty(slot, false);
  return slot;
}

void TierIndex::link(int32_t slot) {
  Slot& s = slots_[slot];
  s.older = newest_;
  s.newer = -1;
  (newest_ < 0 ? oldest_ : slots_[newest_].newer) = slot;
  newest_ = slot;
}

void TierIndex::unlink(int32_t slot) {
  const Slot& s = slots_[slot];
  (s.older < 0 ? oldest_ : slots_[s.older].newer) = s.newer;
  (s.newer < 0 ? newest_ : slots_[s.newer].older) = s.older;
}

SlotRef TierIndex::pin(int32_t slot) {
  TS_CHECK(slots_[slot].named, "an empty slot has nothing to hold");
  if (slots_[slot].refs++ == 0) unlink(slot);
  ++num_pins_;
  return SlotRef(this, slot);
}

void TierIndex::unpin(int32_t slot) {
  Slot& s = slots_[slot];
  --num_pins_;
  if (--s.refs > 0) return;
  s.named ? link(slot) : set_empty(slot, true);
}

void TierIndex::allocate(int32_t count, std::vector<SlotRef>& out) {
  const size_t first = out.size();
  out.reserve(first + count);
  while (count > 0 && (num_empty_ > 0 || oldest_ >= 0)) {
    int32_t slot;
    if (num_empty_ > 0) {
      slot = take_empty();
    } else {
      slot = oldest_;
      if (on_evict_) on_evict_(slot, slots_[slot].name);
      by_name_.erase(slots_[slot].name);
      unlink(slot);
      slots_[slot].named = false;
    }
    slots_[slot].refs = 1;
    ++num_pins_;
    out.push_back(SlotRef(this, slot));
    --count;
  }
  std::sort(out.begin() + static_cast<int64_t>(first), out.end(), [](auto& a, auto& b) { return a.slot() < b.slot(); });
}

bool TierIndex::insert(const PageHash& name, int32_t slot) {
  TS_CHECK(slots_[slot].refs > 0 && !slots_[slot].named, "a page is put into a slot that is held and has none");
  if (!by_name_.try_emplace(name, slot).second) return false;
  slots_[slot].named = true;
  slots_[slot].name = name;
  return true;
}

void TierIndex::restore(const PageHash& name, int32_t slot) {
  TS_CHECK(slot < available_ && (empty_[slot / 64] >> slot % 64 & 1), "restored into an empty slot");
  if (!by_name_.try_emplace(name, slot).second) return;
  set_empty(slot, false);
  slots_[slot].named = true;
  slots_[slot].name = name;
  link(slot);
}

void TierIndex::forget(int32_t slot) {
  Slot& s = slots_[slot];
  if (!s.named) return;
  by_name_.erase(s.name);
  s.named = false;
  if (s.refs > 0) return;
  unlink(slot);
  set_empty(slot, true);
}

void TierIndex::release(std::vector<SlotRef>& refs) {
  while (!refs.empty()) refs.pop_back();
}

void TierIndex::check_invariants() const {
  int32_t named = 0, empty = 0, pins = 0, unpinned = 0;
  for (int32_t slot = 0; slot < num_slots(); ++slot) {
    const Slot& s = slots_[slot];
    const bool is_empty = empty_[slot / 64] >> slot % 64 & 1;
    TS_CHECK(is_empty == (slot < available_ && !s.named && s.refs == 0), "an empty slot is one nobody holds or names");
    TS_CHECK(!s.named || find(s.name) == slot, "a page is not found by its name");
    named += s.named, empty += is_empty, pins += s.refs, unpinned += s.named && s.refs == 0;
  }
  TS_CHECK(named == num_pages() && empty == num_empty_ && pins == num_pins_);
  for (int32_t slot = oldest_, before = -1; slot >= 0; before = slot, slot = slots_[slot].newer, --unpinned)
    TS_CHECK(slots_[slot].older == before && slots_[slot].named && slots_[slot].refs == 0, "broken order of use");
  TS_CHECK(unpinned == 0);
}

}  // namespace tinyserve
