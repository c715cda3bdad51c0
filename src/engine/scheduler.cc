#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace tinyserve {

Scheduler::Scheduler(const SchedulerConfig& config, KvManager& kv, KvTiers* tiers)
    : config_(config),
      kv_(kv),
      pool_(kv.pool()),
      prefix_(kv.prefix()),
      tiers_(tiers),
      page_size_(kv.page_size()),
      hasher_(config.hash_key ? PageHasher(*config.hash_key) : PageHasher()) {
  TS_CHECK(!tiers_ || prefix_, "tiers keep what the prefix cache names");
  if (const auto key = tiers_ ? tiers_->hash_key() : std::nullopt) hasher_ = PageHasher(*key);  // the file's pages have it
  TS_CHECK(config.max_running > 0 && config.max_step_tokens >= config.max_running);
  TS_CHECK(config.max_logit_rows > config.max_running && config.max_prefill_with_decodes > 0);
  running_.reserve(config.max_running);
}

void Scheduler::enqueue(Sequence& sequence) {
  RequestState& request = *sequence.request;
  if (!request.scheduled) request.prefix_root = hasher_.root(request.cache_salt);
  waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), &sequence, earlier), &sequence);
  num_queued_ += !request.scheduled;
  blocked_at_free_ = -1;
}

void Scheduler::add_fork(Sequence& sequence) {
  if (static_cast<int32_t>(running_.size()) < config_.max_running) {
    running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, earlier), &sequence);
  } else {
    sequence.pages.clear();
    sequence.num_computed = 0;
    enqueue(sequence);
  }
}

void Scheduler::remove(Sequence& sequence) {
  if (sequence.finished && sequence.request->max_tokens > 0) growth_.ended(sequence.num_tokens() - sequence.request->num_prompt);
  if (tiers_) tiers_->forget(sequence.uid);
  std::erase(running_, &sequence);
  if (std::erase(waiting_, &sequence) > 0) num_queued_ -= !sequence.request->scheduled;
  sequence.pages.clear();
  sequence.num_computed = 0;
  blocked_at_free_ = -1;
}

bool Scheduler::plan(StepPlan& plan, double now_s) {
  plan.clear();
  if (tiers_) tiers_->begin_plan();
  rows_left_ = prefill_left_ = config_.max_step_tokens;
  logits_left_ = config_.max_logit_rows;
  preempted_ = false;
  plan_decodes(plan);
  if (!plan.items.empty()) prefill_left_ = std::min(rows_left_, config_.max_prefill_with_decodes);
  plan_prefills(plan);
  if (!preempted_) admit(plan, now_s);
  return !plan.items.empty();
}

void Scheduler::plan_decodes(StepPlan& plan) {
  for (size_t i = 0; i < running_.size(); ++i) {  // shrinks from its end when somebody is preempted
    Sequence& sequence = *running_[i];
    if (sequence.remaining() != 1) continue;
    StepItem item{.sequence = &sequence, .start = sequence.num_computed};
    bool reserved = reserve_for_decode(plan, item);
    while (!reserved && running_.size() > i + 1) {
      preempt_latest();
      reserved = reserve_for_decode(plan, item);
    }
    if (!reserved) return preempt_latest();  // itself: it is the latest
    add_rows(plan, item, rows_left_);
  }
}

bool Scheduler::reserve_for_decode(StepPlan& plan, StepItem& item) {
  const PageTable& table = item.sequence->pages;
  item.first_logical = item.start / page_size_;
  item.first_page = static_cast<int32_t>(plan.pages.size());
  item.num_pages = 1;
  const auto allocate = [&] {
    return pool_.allocate({.count = 1,
                           .sequence_pages = table.pages(),
                           .sequence = item.sequence->uid,
                           .expected_pages = expected_pages(*item.sequence, item.first_logical + 1)},
                          plan.pages);
  };
  if (item.first_logical == table.size()) return allocate();
  // A page that another choice of the request still reads is copied before it is written. Holders that copy in this
  // very step will have left it.
  const int32_t page = table[item.first_logical];
  const auto leaving = std::count_if(plan.copies.begin(), plan.copies.end(), [&](auto& c) { return c.first == page; });
  if (pool_.ref_count(page) - leaving == 1) {
    item.num_pages = 0;
    return true;
  }
  if (!allocate()) return false;
  plan.copies.emplace_back(page, plan.pages.back().page());
  return true;
}

void Scheduler::plan_prefills(StepPlan& plan) {
  for (Sequence* sequence : running_) {
    if (prefill_left_ <= 0 || logits_left_ <= 0) return;
    if (sequence->remaining() <= 1) continue;
    StepItem item{.sequence = sequence, .start = sequence->num_computed};
    if (item.start % page_size_ == 0) {  // somebody may have computed the next pages meanwhile
      item.first_logical = item.start / page_size_;
      item.first_page = static_cast<int32_t>(plan.pages.size());
      item.num_hits = item.num_pages = prefix_hits(*sequence, item.first_logical);
      for (int32_t i = 0; i < item.num_pages; ++i)
        plan.pages.push_back(pool_.share(prefix_->find(sequence->hashes[item.first_logical + i])));
      item.start += item.num_pages * page_size_;
      const int32_t logical = item.first_logical + item.num_hits;
      if (const auto partial = partial_hit(*sequence, logical); partial.length > 0) {
        plan.sources.push_back(pool_.share(partial.page));
        plan.copies.emplace_back(partial.page, sequence->pages[logical]);
        item.start += partial.length;
      }
    }
    add_rows(plan, item, prefill_left_);
  }
}

void Scheduler::admit(StepPlan& plan, double now_s) {
  // Some pages stay free for those who are running, so that a newcomer is not preempted at once.
  int32_t running = static_cast<int32_t>(running_.size());
  for (Sequence* sequence : waiting_) {
    if (running >= config_.max_running || prefill_left_ <= 0 || logits_left_ <= 0) return;
    if (blocked_at_free_ >= 0 && pool_.num_free() <= blocked_at_free_ && running > 0) return;
    const int32_t hits = prefix_hits(*sequence, 0);
    const std::span<const PageHash> below = names_below(*sequence, hits);
    const KvTiers::Found found = below.empty() ? KvTiers::Found{} : tiers_->find(sequence->uid, below, now_s);
    if (found.wait) continue;  // who comes after it need not wait with it
    const int32_t fresh = pages_for(sequence->num_tokens()) - hits;
    StepItem item{.sequence = sequence,
                  .first_page = static_cast<int32_t>(plan.pages.size()),
                  .num_pages = hits + fresh,
                  .num_hits = hits,
                  .num_promoted = found.pages,
                  .admitted = true};
    for (int32_t i = 0; i < hits; ++i) plan.pages.push_back(pool_.share(prefix_->find(sequence->hashes[i])));
    const int32_t watermark = running == 0 ? 0 : std::max(running, pool_.num_pages() / 100);
    auto partial = found.pages > 0 ? PrefixCache::Partial{} : partial_hit(*sequence, hits);
    PageRef source = partial.length > 0 ? pool_.share(partial.page) : PageRef();
    if (source && pool_.num_free() - fresh < watermark) {  // rather without the copy than not at all
      source.reset();
      partial = {};
    }
    const bool enough = pool_.num_free() - fresh >= watermark;
    // What follows a hit is placed after it, if there is room.
    const int32_t last_hit = hits > 0 ? plan.pages.back().page() : -1;
    const PageRequest request{.count = fresh,
                              .sequence_pages = {&last_hit, hits > 0 ? 1u : 0u},
                              .sequence = sequence->uid,
                              .expected_pages = expected_pages(*sequence, hits + fresh)};
    if (!enough || !pool_.allocate(request, plan.pages)) {
      num_refused_ += enough;
      num_page_waits_ += blocked_at_free_ < 0;
      plan.pages.resize(item.first_page);
      blocked_at_free_ = pool_.num_free();
      TS_CHECK(running > 0, "a sequence must fit the empty pool");
      return;
    }
    blocked_at_free_ = -1;
    item.start = (hits + found.pages) * page_size_ + partial.length;
    if (found.pages > 0) {
      promoted_.clear();
      for (int32_t i = 0; i < found.pages; ++i) promoted_.push_back(plan.pages[item.first_page + hits + i].page());
      tiers_->promote(sequence->uid, below.first(found.pages), promoted_, plan.promotions);
    }
    if (source) {
      plan.copies.emplace_back(partial.page, plan.pages[item.first_page + hits].page());
      plan.sources.push_back(std::move(source));
    }
    add_rows(plan, item, prefill_left_);
    ++running;
  }
}

/// Pages the sequence is expected to need beyond its first `num_pages`.
int32_t Scheduler::expected_pages(const Sequence& sequence, int32_t num_pages) const {
  const RequestState& request = *sequence.request;
  const int32_t answered = sequence.num_tokens() - request.num_prompt;
  const int64_t more = growth_.expected(answered, request.max_tokens);
  return std::max(0, pages_for(sequence.num_tokens() + more) - num_pages);
}

/// Completes the item with as many rows as the step still has for it.
void Scheduler::add_rows(StepPlan& plan, StepItem item, int32_t budget) {
  const Sequence& sequence = *item.sequence;
  const RequestState& request = *sequence.request;
  int32_t rows = std::min(sequence.num_tokens() - item.start, budget);
  const int32_t scored_from = std::max(item.start, request.first_prompt_logit());
  if (request.wants_prompt_logits()) rows = std::min(rows, scored_from - item.start + logits_left_);
  // A chunk ends where a page does, except at the end: its pages can be shared at once.
  const int32_t end = item.start + rows;
  if (end < sequence.num_tokens() && end / page_size_ * page_size_ > item.start)
    rows = end / page_size_ * page_size_ - item.start;
  item.num_tokens = rows;
  item.num_prompt_logits = std::max(0, std::min(item.start + rows, request.last_prompt_logit()) - scored_from);
  item.samples = item.start + rows == sequence.num_tokens() && request.max_tokens > 0;
  TS_CHECK(rows > 0 && item.num_prompt_logits + item.samples <= logits_left_);
  rows_left_ -= item.num_tokens;
  prefill_left_ -= item.num_tokens;
  logits_left_ -= item.num_prompt_logits + item.samples;
  plan.items.push_back(item);
}

void Scheduler::preempt_latest() {
  Sequence* latest = running_.back();
  if (num_preemptions_ == 0) used_at_first_preemption_ = pool_.num_used();
  enqueue(*latest);  // first: when memory fails it, the sequence must not be in neither list
  running_.pop_back();
  latest->pages.clear();
  latest->num_computed = 0;
  preempted_ = true;
  ++num_preemptions_;
}

void Scheduler::commit(StepPlan& plan) {
  for (const StepItem& item : plan.items) {
    Sequence& sequence = *item.sequence;
    if (item.admitted) {
      sequence.pages.reserve(item.num_pages);
      const auto at = std::find(waiting_.begin(), waiting_.end(), &sequence);
      TS_CHECK(at != waiting_.end());
      waiting_.erase(at);
      if (tiers_) {
        const int32_t full = hit_limit(sequence) / page_size_;
        tiers_->admitted(sequence.uid, item.num_hits, std::max(0, full - item.num_hits - item.num_promoted));
      }
      running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, earlier), &sequence);
    }
    RequestState& request = *sequence.request;
    if (prefix_ && item.admitted && !request.scheduled) prefix_query_tokens_ += request.num_prompt;
    if (!item.admitted || !request.scheduled) {  // what a preempted one finds again is no hit
      request.cached_tokens += item.start - sequence.num_computed;
      prefix_hit_tokens_ += item.start - sequence.num_computed;
    }
    num_queued_ -= !std::exchange(request.scheduled, true);
    for (int32_t i = 0; i < item.num_hits; ++i) prefix_->used(plan.pages[item.first_page + i].page());
    for (int32_t i = 0; i < item.num_pages; ++i)
      sequence.pages.set(item.first_logical + i, std::move(plan.pages[item.first_page + i]));
    sequence.num_computed = item.start;
  }
  plan.pages.clear();
  plan.sources.clear();  // nothing is allocated before the copies are made
}

void Scheduler::computed(const StepItem& item) {
  Sequence& sequence = *item.sequence;
  const int32_t first = item.num_promoted > 0 ? item.first_logical + item.num_hits : item.start / page_size_;
  sequence.num_computed = item.start + item.num_tokens;
  kv_.computed(sequence.pages, item.start, item.num_tokens);
  const int32_t full = sequence.num_computed / page_size_;
  if (!prefix_ || full == first) return;
  hash_pages(sequence, full);
  const std::span<const int32_t> tokens = sequence.tokens;
  for (int32_t i = first; i < full; ++i) {
    prefix_->insert({.name = sequence.hashes[i],
                     .parent = parent_name(sequence, i),
                     .first = i == 0,
                     .answer = (i + 1) * page_size_ > sequence.request->num_prompt,
                     .tokens = tokens.subspan(static_cast<size_t>(i) * page_size_, page_size_)},
                    sequence.pages[i]);
    if (tiers_) tiers_->computed(sequence.hashes[i]);
  }
}

/// Positions before this one may come from the prefix cache: at least the last token is left to compute, and positions
/// whose logits are still wanted are not skipped.
int32_t Scheduler::hit_limit(const Sequence& sequence) const {
  const RequestState& request = *sequence.request;
  const int32_t last = sequence.num_tokens() - 1;
  return request.wants_prompt_logits() ? std::min(last, request.first_prompt_logit()) : last;
}

/// How many pages from `first_logical` on the prefix cache has.
int32_t Scheduler::prefix_hits(Sequence& sequence, int32_t first_logical) {
  if (!prefix_) return 0;
  const int32_t limit = hit_limit(sequence);
  int32_t page = first_logical;
  for (; page < limit / page_size_; ++page) {
    hash_pages(sequence, page + 1);
    if (prefix_->find(sequence.hashes[page]) < 0) break;
  }
  return page - first_logical;
}

/// Names of the full pages after the `hits` that the prefix cache has, for the tiers to look for.
std::span<const PageHash> Scheduler::names_below(Sequence& sequence, int32_t hits) {
  const int32_t full = hit_limit(sequence) / page_size_;
  if (!tiers_ || full <= hits) return {};
  hash_pages(sequence, full);
  return std::span(sequence.hashes).subspan(hits, full - hits);
}

/// What the prefix cache has of the beginning of a page it does not have whole. K and V of a position do not depend on
/// how the prompt was cut into chunks, so a copy of them is as good as computing them.
PrefixCache::Partial Scheduler::partial_hit(Sequence& sequence, int32_t logical) {
  const int32_t start = logical * page_size_, length = std::min(page_size_, hit_limit(sequence) - start);
  if (!prefix_ || length <= 0) return {};
  hash_pages(sequence, logical);
  const std::span<const int32_t> tokens = sequence.tokens;
  return prefix_->find_partial(parent_name(sequence, logical), logical == 0, tokens.subspan(start, length));
}

/// Name of the page before `logical`, or of the root of the request's chains.
PageHash Scheduler::parent_name(const Sequence& sequence, int32_t logical) const {
  return logical == 0 ? sequence.request->prefix_root : sequence.hashes[logical - 1];
}

void Scheduler::hash_pages(Sequence& sequence, int32_t count) {
  const std::span<const int32_t> tokens = sequence.tokens;
  while (static_cast<int32_t>(sequence.hashes.size()) < count) {
    const PageHash parent = parent_name(sequence, static_cast<int32_t>(sequence.hashes.size()));
    sequence.hashes.push_back(
        hasher_.chain(parent, tokens.subspan(sequence.hashes.size() * page_size_, page_size_)));
  }
}

void Scheduler::check_invariants() const {
  kv_.check_invariants();
  std::vector<int32_t> refs(pool_.num_pages(), 0);
  for (size_t i = 0; i < running_.size(); ++i) {
    const Sequence& s = *running_[i];
    TS_CHECK(i == 0 || earlier(running_[i - 1], &s), "running sequences in order of arrival");
    TS_CHECK(s.num_computed >= 0 && s.remaining() >= 1);
    TS_CHECK(s.pages.size() >= pages_for(s.num_computed) && s.pages.size() <= pages_for(s.num_tokens()));
    for (int32_t page : s.pages.pages()) ++refs[page];
  }
  for (size_t i = 0; i < waiting_.size(); ++i) {
    TS_CHECK(i == 0 || earlier(waiting_[i - 1], waiting_[i]), "waiting sequences in order of arrival");
    TS_CHECK(waiting_[i]->pages.size() == 0 && waiting_[i]->num_computed == 0, "who waits holds nothing");
  }
  for (int32_t page = 0; page < pool_.num_pages(); ++page)
    TS_CHECK(refs[page] == pool_.ref_count(page), "a page reference that is no table's");
}

}  // namespace tinyserve
