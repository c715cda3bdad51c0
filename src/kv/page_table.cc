#include "kv/page_table.h"

#include <algorithm>

#include "base/check.h"

namespace tinyserve {

PageTable::PageTable(PagePool& pool) : pool_(&pool), holders_(&pool.holders()), id_(holders_->add_table(this)) {}

PageTable::~PageTable() {
  clear();
  holders_->remove_table(id_);
}

void PageTable::reserve(int32_t num_pages) {
  entries_.reserve(num_pages);
  pages_.reserve(num_pages);
}

void PageTable::count_runs(int32_t change) {
  num_runs_ += change;
  holders_->num_runs_ += change;
}

void PageTable::set(int32_t logical, PageRef page) {
  TS_CHECK(logical >= 0 && logical <= size() && page);
  const int32_t number = page.page();
  if (logical == size()) {
    if (entries_.size() == entries_.capacity()) reserve(std::max(8, 2 * size()));
    entries_.push_back({.ref = std::move(page), .previous = {}, .next = {}});
    pages_.push_back(number);
    holders_->link(*this, logical);
    holders_->num_sequences_ += logical == 0;
    ++holders_->num_entries_;
    count_runs(breaks_at(logical));
    if (reads_) holders_->accesses_.add(number, -reads_);  // it was not there when they happened
    return;
  }
  ++version_;
  if (reads_) {
    holders_->accesses_.add(pages_[logical], reads_);
    holders_->accesses_.add(number, -reads_);
  }
  holders_->unlink(*this, logical);
  const int32_t before = runs_around(logical);
  pages_[logical] = number;
  count_runs(runs_around(logical) - before);
  entries_[logical].ref = std::move(page);
  holders_->link(*this, logical);
  full_pages_ = std::min(full_pages_, logical);
}

void PageTable::share_all(const PageTable& other) {
  TS_CHECK(entries_.empty());
  reserve(other.size());
  for (int32_t page : other.pages_) set(size(), pool_->share(page));
}

void PageTable::clear() {
  ++version_;
  holders_->settle_reads(*this);
  holders_->num_sequences_ -= !entries_.empty();
  holders_->num_entries_ -= size();
  count_runs(-num_runs_);
  full_pages_ = 0;
  while (!entries_.empty()) {
    holders_->unlink(*this, static_cast<int32_t>(entries_.size()) - 1);
    entries_.pop_back();
  }
  pages_.clear();
}

}  // namespace tinyserve
