#include "kv/page_holders.h"

#include <algorithm>

#include "base/check.h"
#include "kv/page_table.h"

namespace tinyserve {

int32_t PageHolders::add_table(PageTable* table) {
  if (spare_ids_.empty()) {
    spare_ids_.reserve(tables_.size() + 1);  // so that giving an id back does not allocate
    tables_.push_back(table);
    return num_ids() - 1;
  }
  const int32_t id = spare_ids_.back();
  spare_ids_.pop_back();
  tables_[id] = table;
  return id;
}

void PageHolders::remove_table(int32_t id) {
  tables_[id] = nullptr;
  spare_ids_.push_back(id);
}

TablePlace& PageHolders::next_of(const TablePlace& place) const {
  return tables_[place.table]->entries_[place.logical].next;
}

void PageHolders::link(PageTable& table, int32_t logical) {
  TablePlace& head = heads_[table.pages_[logical]];
  const TablePlace self{table.id_, logical};
  table.entries_[logical].previous = {};
  table.entries_[logical].next = head;
  if (head.table >= 0)
    tables_[head.table]->entries_[head.logical].previous = self;
  else
    filled_[table.pages_[logical]] = 0;
  head = self;
}

void PageHolders::unlink(PageTable& table, int32_t logical) {
  const auto& [ref, previous, next] = table.entries_[logical];
  const int32_t page = table.pages_[logical];
  if (next.table >= 0) tables_[next.table]->entries_[next.logical].previous = previous;
  if (previous.table >= 0)
    next_of(previous) = next;
  else if ((heads_[page] = next).table < 0)
    filled_slots_ -= filled_[page];
}

int32_t PageHolders::count(int32_t page) const {
  int32_t holders = 0;
  for_each(page, [&](const PageTable&, int32_t) { ++holders; });
  return holders;
}

void PageHolders::filled(PageTable& table, int32_t tokens, int32_t page_size) {
  const int32_t pages = std::min(table.size(), (tokens + page_size - 1) / page_size);
  for (int32_t i = table.full_pages_; i < pages; ++i) {
    int32_t& slots = filled_[table.pages_[i]];
    const int32_t here = std::min(page_size, tokens - i * page_size);
    if (here <= slots) continue;  // shared with somebody who is as far
    filled_slots_ += here - slots;
    slots = here;
  }
  table.full_pages_ = std::max(table.full_pages_, std::min(pages, tokens / page_size));
}

void PageHolders::read(PageTable& table, int32_t pages) {
  if (pages == table.size()) {
    if (table.reads_ == 0) read_.push_back(table.id_);
    ++table.reads_;
    return;
  }
  for (int32_t i = 0; i < pages; ++i) accesses_.add(table.pages_[i], 1);
}

void PageHolders::settle_reads(PageTable& table) {
  if (table.reads_ == 0) return;
  for (int32_t page : table.pages_) accesses_.add(page, table.reads_);
  table.reads_ = 0;
}

void PageHolders::close_window() {
  for (int32_t id : read_)
    if (tables_[id]) settle_reads(*tables_[id]);
  read_.clear();
  accesses_.close();
}

double PageHolders::relocate(int32_t from, int32_t to) {
  TS_CHECK(!held(to), "a page moves to where somebody is");
  double won = 0;
  for (TablePlace place = heads_[from]; place.table >= 0; place = next_of(place)) {
    PageTable& table = *tables_[place.table];
    const int32_t before = table.runs_around(place.logical);
    table.pages_[place.logical] = to;
    const int32_t change = table.runs_around(place.logical) - before;
    if (change) won += table.size() * (1.0 / (table.num_runs_ + change) - 1.0 / table.num_runs_);
    table.count_runs(change);
    table.entries_[place.logical].ref.retarget(to);
    ++table.version_;
  }
  heads_[to] = heads_[from];
  heads_[from] = {};
  filled_[to] = filled_[from];
  accesses_.exchange(from, to);
  return won;
}

void PageHolders::check_invariants() const {
  int64_t sequences = 0, entries = 0, runs = 0, slots = 0, listed = 0;
  for (size_t id = 0; id < tables_.size(); ++id) {
    if (!tables_[id]) continue;
    const PageTable& table = *tables_[id];
    TS_CHECK(table.id_ == static_cast<int32_t>(id) && table.entries_.size() == table.pages_.size());
    sequences += table.size() > 0;
    entries += table.size();
    int32_t own_runs = 0;
    for (int32_t i = 0; i < table.size(); ++i) {
      TS_CHECK(table.entries_[i].ref.page() == table.pages_[i], "a reference to another page than the table's");
      own_runs += table.breaks_at(i);
      const TablePlace previous = table.entries_[i].previous, self{table.id_, i};
      TS_CHECK((previous.table >= 0 ? next_of(previous) : heads_[table.pages_[i]]) == self, "a place not in its list");
    }
    TS_CHECK(own_runs == table.num_runs_, "runs of a table");
    runs += own_runs;
  }
  for (size_t page = 0; page < heads_.size(); ++page) {
    if (heads_[page].table < 0) continue;
    slots += filled_[page];
    for_each(static_cast<int32_t>(page), [&](const PageTable& table, int32_t logical) {
      TS_CHECK(table[logical] == static_cast<int32_t>(page), "a list of holders with a stranger in it");
      ++listed;
    });
  }
  TS_CHECK(sequences == num_sequences_ && entries == num_entries_ && runs == num_runs_, "sums over tables");
  TS_CHECK(listed == entries && slots == filled_slots_, "sums over pages");
}

}  // namespace tinyserve
