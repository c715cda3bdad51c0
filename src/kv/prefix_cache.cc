#include "kv/prefix_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "base/error.h"

namespace tinyserve {

PrefixPolicy parse_prefix_policy(std::string_view name) {
  for (PrefixPolicy policy : {PrefixPolicy::kOff, PrefixPolicy::kLru, PrefixPolicy::kHeat}) {
    if (name == prefix_policy_name(policy)) return policy;
  }
  throw InputError(fmt::format("prefix cache '{}' is not known: off, lru and heat are", name));
}

const char* prefix_policy_name(PrefixPolicy policy) {
  return policy == PrefixPolicy::kOff ? "off" : policy == PrefixPolicy::kLru ? "lru" : "heat";
}

PrefixCache::PrefixCache(PagePool& pool, int32_t page_size, const PrefixConfig& config)
    : pool_(pool),
      config_(config),
      page_size_(page_size),
      mask_(std::bit_ceil(static_cast<uint64_t>(pool.num_pages())) - 1),
      family_mask_(std::bit_ceil(static_cast<uint64_t>(pool.num_pages()) / 4 + 1) - 1),
      buckets_(mask_ + 1, -1),
      pages_(pool.num_pages()),
      tokens_(static_cast<size_t>(pool.num_pages()) * static_cast<size_t>(page_size)),
      children_(pool.num_pages(), pool.num_pages() + 2 * static_cast<int32_t>(family_mask_ + 1)),
      model_(pool.num_pages()),
      ghosts_(config.policy == PrefixPolicy::kHeat ? pool.num_pages() : 1),
      lru_(config.policy == PrefixPolicy::kLru ? pool.num_pages() : 0, 1),
      heat_(config.policy == PrefixPolicy::kHeat ? std::make_unique<HeatOrder>(pool.num_pages(), model_) : nullptr) {
  TS_CHECK(config.enabled() && page_size >= 0);
  stack_.reserve(pool.num_pages());  // an eviction must not find that memory is short
  pool_.set_listener(this);
}

PrefixCache::~PrefixCache() {
  listener_ = nullptr;
  clear();
  pool_.set_listener(nullptr);
}

int32_t PrefixCache::find(const PageHash& name) const {
  int32_t page = buckets_[name.low & mask_];
  while (page >= 0 && !(pages_[page].name == name)) page = pages_[page].next;
  return page;
}

PrefixCache::Partial PrefixCache::find_partial(const PageHash& parent, bool first, std::span<const int32_t> wanted) const {
  Partial best;
  if (page_size_ == 0 || wanted.empty()) return best;
  int32_t family = first ? root_list(parent) : find(parent);
  if (family < 0) return best;
  int32_t page = children_.back(family);
  for (int32_t i = 0; page >= 0 && i < kMaxCandidates; ++i, page = children_.previous(page)) {
    if (!(pages_[page].parent_name == parent)) continue;  // another root in the same list
    const std::span<const int32_t> have = tokens(page);
    const size_t most = std::min(have.size(), wanted.size());
    const auto differ = std::mismatch(have.begin(), have.begin() + static_cast<ptrdiff_t>(most), wanted.begin());
    const auto length = static_cast<int32_t>(differ.first - have.begin());
    if (length > best.length) best = {page, length};
  }
  return best;
}

std::span<const int32_t> PrefixCache::tokens(int32_t page) const {
  if (!pages_[page].has_tokens) return {};
  return std::span(tokens_).subspan(static_cast<size_t>(page) * static_cast<size_t>(page_size_), static_cast<size_t>(page_size_));
}

PageContent PrefixCache::content(int32_t page) const {
  const Page& p = pages_[page];
  return {.name = p.name, .parent = p.parent_name, .first = p.first, .answer = p.answer, .tokens = tokens(page)};
}

void PrefixCache::insert(const PageContent& content, int32_t page) {
  if (pool_.kept(page) || find(content.name) >= 0) return;
  pool_.keep(page);
  Page& p = pages_[page];
  p = Page{.name = content.name, .parent_name = content.parent};
  p.answer = content.answer;
  p.first = content.first;
  p.touched = p.indexed = true;
  p.uses = 1;
  if (page_size_ > 0 && static_cast<int32_t>(content.tokens.size()) == page_size_) {
    p.has_tokens = true;
    std::copy(content.tokens.begin(), content.tokens.end(), tokens_.begin() + ptrdiff_t{page} * page_size_);
  }
  int32_t* head = bucket(content.name);
  p.next = *head;
  *head = page;
  ++size_;
  ++stats_.inserted;

  if (p.first) {
    children_.push_back(root_list(p.parent_name), page);
  } else if ((p.parent = find(p.parent_name)) >= 0) {
    if (heat_ && heat_->contains(p.parent)) heat_->remove(p.parent);  // a leaf no longer
    children_.push_back(p.parent, page);
    p.orphan = pages_[p.parent].orphan;
  } else {
    children_.push_back(orphan_list(p.parent_name), page);
    p.orphan = true;
  }
  for (int32_t child = children_.front(orphan_list(p.name)), next; child >= 0; child = next) {
    next = children_.next(child);
    if (!(pages_[child].parent_name == p.name)) continue;
    children_.remove(child);
    children_.push_back(page, child);
    pages_[child].parent = page;
    if (!p.orphan) set_orphan(child, false);
  }

  if (!heat_) return void(model_.advance());
  if (const auto ghost = ghosts_.take(p.name)) {
    model_.reused(ghost->kind, ghost->since);
    p.uses = static_cast<uint8_t>(std::min(ReuseModel::uses(ghost->kind) + 1, 8));
    ++stats_.returned;
  }
  if (model_.advance()) heat_->on_epoch();
}

void PrefixCache::used(int32_t page) {
  Page& p = pages_[page];
  if (!p.indexed) return;
  if (p.waiting) {
    model_.reused(p.kind, p.since);
    p.waiting = false;
  }
  p.uses = static_cast<uint8_t>(std::min(p.uses + 1, 8));
  p.touched = true;
}

void PrefixCache::on_free(int32_t page) {
  Page& p = pages_[page];
  if (!heat_) {
    p.since = model_.epoch();
  } else if (p.touched) {
    p.kind = ReuseModel::kind(p.uses, p.answer);
    p.since = model_.epoch();
    p.touched = false;
    p.waiting = true;
    model_.wait(p.kind);
  }
  offer(page);
}

void PrefixCache::on_reuse(int32_t page) { withdraw(page); }

/// An unreferenced page goes into the order of eviction, if it may.
void PrefixCache::offer(int32_t page) {
  if (!heat_) return lru_.push_back(0, page);
  const Page& p = pages_[page];
  if (children_.empty(page)) heat_->add(page, p.orphan ? HeatOrder::kNoUse : p.kind, p.since);
}

void PrefixCache::withdraw(int32_t page) {
  if (!listed(page)) return;
  if (heat_)
    heat_->remove(page);
  else
    lru_.remove(page);
}

int32_t PrefixCache::coldest() { return heat_ ? heat_->coldest() : lru_.front(0); }

int32_t PrefixCache::coldest_after(int32_t page) const {
  if (!heat_) return lru_.next(page);
  return heat_->after(page, pages_[page].orphan ? HeatOrder::kNoUse : pages_[page].kind, pages_[page].since);
}

float PrefixCache::price(int32_t page) const {
  const Page& p = pages_[page];
  if (!p.indexed || p.orphan) return 0;
  const int32_t age = model_.age(p.since);
  const float value = heat_ ? model_.value(p.kind, age) : 1.0f / static_cast<float>(1 + age);
  return children_.empty(page) ? value : kInner * value;
}

void PrefixCache::on_evict(int32_t page) {
  ++stats_.evicted;
  if (listener_) listener_->on_forget(page, content(page));
  remove(page);
}

/// Out of the index and all lists; the pool's mark is the caller's.
void PrefixCache::remove(int32_t page) {
  withdraw(page);
  Page& p = pages_[page];
  TS_CHECK(p.indexed, "an evicted page is not in the index");
  int32_t* link = bucket(p.name);
  while (*link != page) {
    TS_CHECK(*link >= 0, "an evicted page is not in the index");
    link = &pages_[*link].next;
  }
  *link = p.next;
  --size_;
  if (p.waiting) {
    const auto gone = ghosts_.put(p.name, {p.kind, p.since});
    if (gone) model_.lost(gone->kind, gone->since);
    p.waiting = false;
  }
  children_.remove(page);
  for (int32_t child; (child = children_.front(page)) >= 0;) {
    children_.remove(child);
    children_.push_back(orphan_list(p.name), child);
    pages_[child].parent = -1;
    set_orphan(child, true);
  }
  // The page before it may be a leaf now.
  if (heat_ && p.parent >= 0 && children_.empty(p.parent) && pool_.ref_count(p.parent) == 0) offer(p.parent);
  p.indexed = false;
}

/// Marks the page and all that follow it.
void PrefixCache::set_orphan(int32_t root, bool orphan) {
  stack_.assign(1, root);
  while (!stack_.empty()) {
    const int32_t page = stack_.back();
    stack_.pop_back();
    if (pages_[page].orphan == orphan) continue;  // and so are its children
    pages_[page].orphan = orphan;
    stats_.orphaned += orphan;
    if (heat_ && heat_->contains(page)) {
      heat_->remove(page);
      offer(page);
    }
    for (int32_t child = children_.front(page); child >= 0; child = children_.next(child)) stack_.push_back(child);
  }
}

void PrefixCache::relocate(int32_t from, int32_t to) {
  TS_CHECK(!pages_[to].indexed, "a page moves onto content that is still indexed");
  if (!pages_[from].indexed) return;
  TS_CHECK(!listed(from), "only used pages move");
  Page& p = pages_[to] = pages_[from];
  pages_[from].indexed = false;
  for (int32_t* link = bucket(p.name);; link = &pages_[*link].next) {
    TS_CHECK(*link >= 0, "a moved page is not in the index");
    if (*link != from) continue;
    *link = to;
    break;
  }
  children_.replace(from, to);
  for (int32_t child; (child = children_.front(from)) >= 0;) {
    children_.remove(child);
    children_.push_back(to, child);
    pages_[child].parent = to;
  }
  if (p.has_tokens)
    std::copy_n(tokens_.begin() + ptrdiff_t{from} * page_size_, page_size_, tokens_.begin() + ptrdiff_t{to} * page_size_);
}

void PrefixCache::clear() {
  for (int32_t& head : buckets_) {
    while (head >= 0) {
      const int32_t page = head;
      if (listener_) listener_->on_forget(page, content(page));
      remove(page);
      pool_.forget(page);
    }
  }
}

void PrefixCache::check_invariants() const {
  int32_t found = 0, kept = 0;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    for (int32_t page = buckets_[b]; page >= 0; page = pages_[page].next, ++found) {
      const Page& p = pages_[page];
      TS_CHECK(p.indexed && (p.name.low & mask_) == b, "page in the wrong bucket");
      TS_CHECK(pool_.kept(page), "indexed page not kept by the pool");
      TS_CHECK(find(p.name) == page, "two pages of one content");
      TS_CHECK(children_.contains(page), "a page in no family");
      TS_CHECK(p.first ? p.parent < 0 && !p.orphan : p.parent == find(p.parent_name), "a page with a wrong parent");
      if (!p.first) TS_CHECK(p.orphan == (p.parent < 0 || pages_[p.parent].orphan), "wrongly called an orphan");
      const bool free = pool_.ref_count(page) == 0;
      TS_CHECK(listed(page) == (free && (!heat_ || children_.empty(page))), "the order of eviction is not the free leaves");
      TS_CHECK(!heat_ || !free || p.waiting, "a free page that does not wait");
    }
  }
  for (int32_t page = 0; page < pool_.num_pages(); ++page) kept += pool_.kept(page);
  TS_CHECK(found == size_ && kept == size_);
}

}  // namespace tinyserve
