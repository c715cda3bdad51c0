#include "kv/compactor.h"

#include <algorithm>

#include "base/check.h"
#include "kv/page_table.h"

namespace tinyserve {
namespace {

// What a step may look at, so that planning stays cheap beside the step: searches, tables and entries of each search.
constexpr int32_t kSearchesPerStep = 4, kTablesPerSearch = 16, kEntriesPerSearch = 8192, kIdsPerSearch = 512;
constexpr int32_t kRunsPerTable = 256;      // boundaries of a table that are looked at
constexpr int32_t kLargestGap = 4096;       // pages beside the longest free run that may be moved away at once
constexpr size_t kMostChanges = 4096;       // holders of the ends of a run, above which it stays where it is
constexpr size_t kMostVacated = 1 << 16;
constexpr int32_t kLongestRest = 128;       // steps

}  // namespace

Compactor::Compactor(const CompactionConfig& config, PagePool& pool, PrefixCache* prefix)
    : config_(config), pool_(pool), prefix_(prefix) {
  if (config.bytes_per_step <= 0) return;
  batch_.resize(pool.num_pages());
  mapped_.resize(pool.num_pages());
}

bool Compactor::movable(int32_t page) const {
  return pool_.ref_count(page) > 0 && pool_.holders().count(page) == pool_.ref_count(page);
}

bool Compactor::wanted(double total_fragmentation) {
  const PageHolders& holders = pool_.holders();
  const double sequences = static_cast<double>(std::max<int64_t>(holders.num_sequences(), 1));
  const double descriptors = static_cast<double>(holders.num_runs()) / sequences;
  const double external = pool_.run_statistics().external_fragmentation();
  const bool was = active_;
  if (descriptors > config_.start_descriptors || external > config_.start_external ||
      total_fragmentation > config_.start_total)
    active_ = true;
  else if (descriptors <= config_.stop_descriptors && external <= config_.stop_external &&
           total_fragmentation <= config_.start_total / 2)
    active_ = false;
  if (holders.num_sequences() == 0) active_ = false;
  if (was && !active_) next_rest_ = 16;
  return active_;
}

void Compactor::begin_plan() {
  plan_.clear();
  for (auto u = undo_.rbegin(); u != undo_.rend(); ++u)  // taken from the end: what makes room stays in order
    if (!u->displaced && vacated_.size() < kMostVacated) vacated_.push_back(u->from);
  undo_.clear();
  ++batch_number_;
}

const MovePlan& Compactor::plan(int32_t budget, double total_fragmentation) {
  begin_plan();
  if (budget <= 0) return plan_;
  const bool random = config_.random_moves > 0;
  if (rest_ > 0 && !random) {
    --rest_;
    return plan_;
  }
  if (!random && !wanted(total_fragmentation)) {
    jobs_.clear();
    longest_before_ = 0;
    return plan_;
  }
  const size_t most = static_cast<size_t>(std::max(budget, config_.random_moves)) + 1;
  plan_.moves.reserve(most);
  plan_.displaced.reserve(most);
  undo_.reserve(2 * most);
  vacated_.reserve(kMostVacated);
  try {
    if (random) {
      move_at_random(config_.random_moves);
      return plan_;
    }
    for (int32_t searches = 0; budget > 0;) {
      if (jobs_.empty() && (searches++ == kSearchesPerStep || !find_job())) break;
      if (!advance(jobs_.back(), budget)) break;
      jobs_.pop_back();
      if (jobs_.empty() && longest_before_ > 0) {
        stats_.pages_won += std::max(0, pool_.run_statistics().largest - longest_before_);
        longest_before_ = 0;
      }
    }
  } catch (...) {
    undo(false);
    throw;
  }
  return plan_;
}

/// Moves what the budget and this batch allow; true when the job is done, or cannot go on as it was thought of.
bool Compactor::advance(Job& job, int32_t& budget) {
  for (; job.next < static_cast<int32_t>(job.pages.size()); ++job.next) {
    const int32_t from = job.pages[job.next], to = job.destination + job.next;
    if (pool_.ref_count(to) > 0 || !movable(from)) return true;
    if (budget <= 0 || touched(from) || touched(to)) return false;
    if (job.next > 0) {
      bool follows = false;  // it still comes after the page moved before it
      pool_.holders().for_each(
          from, [&](const PageTable& table, int32_t logical) { follows |= logical > 0 && table[logical - 1] == to - 1; });
      if (!follows) return true;
    }
    budget -= take_place(from, to);
  }
  return true;
}

/// Moves one page; returns how many copies that takes.
int32_t Compactor::take_place(int32_t from, int32_t to) {
  int32_t copies = 1;
  if (pool_.state(to) == PageState::kCached) {
    if (const int32_t empty = empty_page(); empty >= 0) {
      relocate_cached(to, empty);
      touch(empty);
      undo_.push_back({to, empty, true});
      plan_.displaced.emplace_back(to, empty);
      ++stats_.pages_displaced;
      ++copies;
    } else {
      pool_.discard(to);
      ++stats_.pages_discarded;
    }
  }
  relocate(from, to);
  touch(from), touch(to);
  undo_.push_back({from, to, false});
  plan_.moves.emplace_back(from, to);
  stats_.pages_moved += copies;
  return copies;
}

void Compactor::move_at_random(int32_t count) {
  const auto any_page = [&] {
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int32_t>((random_ >> 33) % static_cast<uint64_t>(pool_.num_pages()));
  };
  for (int32_t tries = 0; count > 0 && tries < 1000; ++tries) {
    const int32_t from = any_page(), to = any_page();
    if (touched(from) || touched(to) || pool_.ref_count(to) > 0 || !movable(from)) continue;
    take_place(from, to);
    --count;
  }
}

void Compactor::undo(bool displaced_copied) {
  stats_.failed_copies += !undo_.empty();
  for (; !undo_.empty(); undo_.pop_back()) {
    const Undo& u = undo_.back();
    if (u.displaced && displaced_copied) continue;  // where it was, something else may lie half copied
    --stats_.pages_moved;
    stats_.pages_displaced -= u.displaced;
    if (u.displaced)
      relocate_cached(u.to, u.from);
    else
      relocate(u.to, u.from);
  }
  plan_.clear();
  jobs_.clear();
}

void Compactor::move(int32_t from, int32_t to) {
  TS_CHECK(movable(from), "a page moves that somebody holds beside the tables");
  pool_.discard(to);
  relocate(from, to);
}

void Compactor::relocate(int32_t from, int32_t to) {
  pool_.relocate(from, to);
  stats_.pages_won += pool_.holders().relocate(from, to);
  if (prefix_) prefix_->relocate(from, to);
}

void Compactor::relocate_cached(int32_t from, int32_t to) {
  PageRef content = pool_.share(from);
  pool_.relocate(from, to);
  if (prefix_) prefix_->relocate(from, to);
  content.retarget(to);
}

int32_t Compactor::empty_page() {
  while (!vacated_.empty()) {
    const int32_t page = vacated_.back();
    vacated_.pop_back();
    if (pool_.state(page) == PageState::kEmpty && !touched(page)) return page;
  }
  return -1;
}

bool Compactor::find_job() {
  const PageHolders& holders = pool_.holders();
  best_pay_ = config_.min_pay;
  best_.pages.clear();
  int32_t entries = 0, ids = 0;
  for (int32_t tables = 0; seen_ < holders.num_ids() && tables < kTablesPerSearch && entries < kEntriesPerSearch &&
                           ids < kIdsPerSearch;
       ++seen_, ++ids) {
    if (++cursor_ >= holders.num_ids()) cursor_ = 0;
    const PageTable* table = holders.table(cursor_);
    if (!table || table->num_runs() < 2) continue;
    ++tables;
    entries += table->size();
    examine(*table);
  }
  if (!best_.pages.empty()) {
    best_.next = 0;
    jobs_.push_back(best_);
    ++stats_.jobs;
    seen_ = 0;
    return true;
  }
  if (seen_ < holders.num_ids()) return false;  // goes on in the next step
  seen_ = 0;
  if (pool_.run_statistics().external_fragmentation() > config_.stop_external && find_gap_job()) return true;
  rest_ = next_rest_;
  next_rest_ = std::min(2 * next_rest_, kLongestRest);
  ++stats_.rests;
  return false;
}

void Compactor::examine(const PageTable& table) {
  const std::span<const int32_t> pages = table.pages();
  segments_.clear();
  for (int32_t i = 0; i < table.size() && segments_.size() < static_cast<size_t>(kRunsPerTable); ++i) {
    if (i == 0 || pages[i] != pages[i - 1] + 1) segments_.push_back({i, pages[i], 0});
    ++segments_.back().length;
  }
  if (segments_.size() == static_cast<size_t>(kRunsPerTable)) segments_.pop_back();  // maybe cut
  const RunIndex& runs = pool_.runs();
  for (size_t i = 0; i + 1 < segments_.size(); ++i) {
    const Segment &a = segments_[i], &b = segments_[i + 1];
    const int32_t end = a.first + a.length;
    if (end < pool_.num_pages() && runs.is_free(end) && runs.run_of(end).end() - end >= b.length)
      consider(table, b.logical, b.length, end);
    if (b.first > 0 && runs.is_free(b.first - 1) && b.first - runs.run_of(b.first - 1).start >= a.length)
      consider(table, a.logical, a.length, b.first - a.length);
  }
  const int32_t hole = find_hole(table.size() + promised_behind(pages.back()), -1, {});
  if (hole >= 0) consider(table, 0, table.size(), hole);
}

/// Is moving `count` pages of the table from `logical` on to `destination` better than the best known?
void Compactor::consider(const PageTable& table, int32_t logical, int32_t count, int32_t destination) {
  const std::span<const int32_t> pages = table.pages().subspan(logical, count);
  int32_t cost = count;
  for (int32_t page = destination; page < destination + count; ++page) cost += pool_.state(page) == PageState::kCached;
  const double pay = win(pages, destination) / cost;
  if (pay <= best_pay_) return;
  best_pay_ = pay;
  best_.pages.assign(pages.begin(), pages.end());
  best_.destination = destination;
}

/// Growth of the mean run length in pages, summed over all sequences, were the pages moved to `destination` and after.
double Compactor::win(std::span<const int32_t> pages, int32_t destination) {
  ++map_number_;
  for (size_t i = 0; i < pages.size(); ++i) mapped_[pages[i]] = {map_number_, destination + static_cast<int32_t>(i)};
  const auto moves = [&](int32_t page) { return mapped_[page].number == map_number_; };
  const auto target = [&](int32_t page) { return moves(page) ? mapped_[page].to : page; };
  const auto starts = [&](size_t i) { return i == 0 || pages[i] != pages[i - 1] + 1; };
  changes_.clear();
  for (size_t i = 0; i < pages.size() && changes_.size() <= kMostChanges; ++i) {
    const int32_t page = pages[i];
    const auto note = [&](const PageTable& table, bool joined, bool will_be) {
      if (joined != will_be) changes_.emplace_back(table.id(), joined ? 1 : -1);
    };
    if (starts(i)) {
      pool_.holders().for_each(page, [&](const PageTable& table, int32_t logical) {
        if (logical == 0) return;
        const int32_t before = table[logical - 1];
        note(table, before + 1 == page, target(before) + 1 == target(page));
      });
    }
    if (i + 1 == pages.size() || starts(i + 1)) {
      pool_.holders().for_each(page, [&](const PageTable& table, int32_t logical) {
        if (logical + 1 == table.size()) return;
        const int32_t after = table[logical + 1];
        if (!moves(after)) note(table, page + 1 == after, target(page) + 1 == after);  // else seen from its other side
      });
    }
  }
  if (changes_.size() > kMostChanges) return -1;
  std::sort(changes_.begin(), changes_.end());
  double won = 0;
  for (size_t i = 0, end; i < changes_.size(); i = end) {
    int32_t change = 0;
    for (end = i; end < changes_.size() && changes_[end].first == changes_[i].first; ++end) change += changes_[end].second;
    const PageTable& table = *pool_.holders().table(changes_[i].first);
    won += table.size() * (1.0 / (table.num_runs() + change) - 1.0 / table.num_runs());
  }
  return won;
}

/// Pages kept free behind this one, for the sequence to grow: they are wanted in another place as well.
int32_t Compactor::promised_behind(int32_t page) const {
  const RunIndex& runs = pool_.runs();
  return page + 1 < pool_.num_pages() && runs.is_free(page + 1) ? runs.run_of(page + 1).reserved : 0;
}

/// Where `count` pages fit: in nearly the shortest free run that has so many, behind what is promised of it, but not the
/// one that starts at `not_this`, nor one that `taken` jobs move to; -1: there is none.
int32_t Compactor::find_hole(int32_t count, int32_t not_this, std::span<const Job> taken) const {
  constexpr int32_t kLooks = 16;
  const RunIndex& runs = pool_.runs();
  int32_t best = -1, shortest = 0;
  for (const RunIndex::Family family : {RunIndex::kPlain, RunIndex::kRest}) {
    bool found = false;
    for (int32_t c = runs.next_class(family, RunIndex::class_of(count)); c != RunIndex::kNone && !found;
         c = c + 1 < RunIndex::kNumClasses ? runs.next_class(family, c + 1) : RunIndex::kNone) {
      int32_t looks = 0;
      for (int32_t h = runs.head(family, c); h != RunIndex::kNone && looks < kLooks; h = runs.next(family, h), ++looks) {
        const RunIndex::Run& run = runs.run(h);
        const int32_t place = run.start + run.reserved;
        const auto goes_there = [&](const Job& job) { return job.destination == place; };
        if (run.usable() < count || run.start == not_this || std::any_of(taken.begin(), taken.end(), goes_there)) continue;
        found = true;
        if (best < 0 || run.usable() < shortest) best = place, shortest = run.usable();
        break;
      }
    }
  }
  return best;
}

/// Moves pages that bound the longest free run into holes elsewhere, one run of a sequence after the other, as far as they
/// fit in one piece each; when that reaches the next free run, it is won as well.
bool Compactor::find_gap_job() {
  const RunIndex& runs = pool_.runs();
  const RunIndex::Run longest = runs.longest();
  if (longest.length == 0) return false;
  double best = config_.min_pay;
  std::vector<Job> jobs, chosen;
  for (const bool above : {true, false}) {
    jobs.clear();
    double won = 0;
    int32_t moved = 0;
    for (int32_t next = above ? longest.end() : longest.start - 1; moved < kLargestGap;) {
      if (next < 0 || next >= pool_.num_pages()) break;
      if (runs.is_free(next)) {
        won += runs.run_of(next).length;
        if (moved > 0 && won / moved > best) best = won / moved, chosen = jobs;
        break;
      }
      Job job;
      joined_from(next, above, job.pages);
      const auto count = static_cast<int32_t>(job.pages.size());
      if (count == 0) break;
      job.destination = find_hole(count + promised_behind(job.pages.back()), longest.start, jobs);
      if (job.destination < 0) break;
      next += above ? count : -count;
      moved += count;
      won += count + win(job.pages, job.destination);
      jobs.push_back(std::move(job));
      if (won / moved > best) best = won / moved, chosen = jobs;
    }
  }
  if (chosen.empty()) return false;
  std::reverse(chosen.begin(), chosen.end());  // the one beside the longest run goes first: the last of the list
  jobs_ = std::move(chosen);
  longest_before_ = longest.length;
  ++stats_.jobs;
  return true;
}

/// The used pages from `page` on, upwards or downwards, that follow each other in some sequence, in rising order; none
/// when one of them does not move.
void Compactor::joined_from(int32_t page, bool upwards, std::vector<int32_t>& out) const {
  const auto follows = [&](int32_t first) {  // some sequence goes on from `first` to the page behind it
    bool joined = false;
    pool_.holders().for_each(first, [&](const PageTable& table, int32_t logical) {
      joined |= logical + 1 < table.size() && table[logical + 1] == first + 1;
    });
    return joined;
  };
  out.clear();
  for (const int32_t step = upwards ? 1 : -1;; page += step) {
    if (!movable(page) || static_cast<int32_t>(out.size()) == kLargestGap) return out.clear();
    out.push_back(page);
    const int32_t next = page + step;
    if (next < 0 || next >= pool_.num_pages() || !follows(std::min(page, next))) break;
  }
  if (!upwards) std::reverse(out.begin(), out.end());
}

}  // namespace tinyserve
