#include "kv/tiers/kv_tiers.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"

namespace tinyserve {
namespace {

constexpr int32_t kLayout = 1;                           // of a page's bytes in a tier; part of the fingerprint
constexpr int64_t kLoadBytes = int64_t{256} << 20;       // read for requests that wait; one request may always read
constexpr size_t kMostAhead = 1 << 16;                   // names waiting to be written ahead; the oldest are let go
constexpr int64_t kLargeCopy = int64_t{64} << 20;
constexpr double kPatience = 1.0;                        // seconds to wait for the disk while nothing is measured
constexpr double kLeastPatience = 0.02;                  // and at least, whatever computing would take

PageHash fingerprint(const TiersConfig& config, const ops::Ops& ops, const KvStorage& storage) {
  const ops::KvLayer& l = storage.layers()[0];
  std::string text = fmt::format("layout {} model {} backend {} layers {} heads {} page {} dim {} dtype {}", kLayout,
                                 config.fingerprint, ops.name(), storage.layers().size(), l.kv_heads,
                                 l.page_size, l.head_dim, dtype_name(l.dtype));
  for (const PageTensor& t : storage.tensors()) text += fmt::format(" {}", t.page_bytes);
  const XXH128_hash_t h = XXH3_128bits(text.data(), text.size());
  return {h.low64, h.high64};
}

}  // namespace

std::unique_ptr<KvTiers> KvTiers::make(const TiersConfig& config, ops::Ops& ops, const KvStorage& storage) {
  if (!config.any()) return nullptr;
  return std::unique_ptr<KvTiers>(new KvTiers(config, ops, storage));
}

KvTiers::KvTiers(const TiersConfig& config, ops::Ops& ops, const KvStorage& storage)
    : config_(config),
      page_size_(storage.layers()[0].page_size),
      copier_(ops, storage.tensors()),
      fingerprint_(fingerprint(config, ops, storage)) {
  const int64_t page_bytes = copier_.page_bytes();
  if (config.host_bytes > 0) {
    if (config.host_bytes < page_bytes)
      throw InputError(fmt::format("{} bytes of host memory for offloaded K/V hold no page: one has {} bytes",
                                   config.host_bytes, page_bytes));
    const auto slots = static_cast<int32_t>(std::min<int64_t>(config.host_bytes / page_bytes, 1 << 30));
    host_ = std::make_unique<Host>(slots, copier_, [this](int32_t slot, const PageHash& name) {
      spilled_.push_back({slot, name});
      ++stats_.host_evicted;
    });
    stats_.host_max_pages = slots;
    stats_.large_copy_gb_per_s = copier_.large_copy_gb_per_s(std::min(config.host_bytes, kLargeCopy));
  }
  if (!config.disk_path.empty() || config.open_disk) open_disk();
}

void KvTiers::open_disk() {
  const int64_t least = DiskStore::min_bytes(copier_.page_bytes());
  if (config_.disk_bytes < least)
    throw InputError(fmt::format("a K/V offloading file of {} bytes is too small for this model: it needs at least {}",
                                 config_.disk_bytes, least));
  DiskTierConfig disk;
  disk.path = config_.disk_path;
  disk.max_bytes = config_.disk_bytes;
  disk.store.page_bytes = copier_.page_bytes();
  disk.store.fingerprint = fingerprint_;
  std::random_device device;
  for (uint64_t& word : disk.store.hash_key) word = uint64_t{device()} << 32 | device();
  disk_ = config_.open_disk ? DiskTier::open(config_.open_disk(), disk) : DiskTier::open(disk);
}

std::optional<HashKey> KvTiers::hash_key() const {
  if (!disk_) return std::nullopt;
  return disk_->hash_key();
}

void KvTiers::evicted(int32_t page, const PageHash& name) { evicted_.push_back({page, name}); }

/// How many of the names can be brought now: from host memory, or from what was read for the sequence.
int32_t KvTiers::ready(const Load* load, std::span<const PageHash> names, int32_t& from_disk) const {
  const std::span<const PageHash> read =
      load ? std::span(load->read->images.names).first(load->read->num_read) : std::span<const PageHash>{};
  size_t next = 0;
  from_disk = 0;
  int32_t n = 0;
  for (; n < static_cast<int32_t>(names.size()); ++n) {
    size_t at = next;
    while (at < read.size() && !(read[at] == names[n])) ++at;
    if (at < read.size()) {
      next = at + 1;
      ++from_disk;
    } else if (in_host(names[n]) < 0) {
      break;
    }
  }
  return n;
}

KvTiers::Found KvTiers::find(uint64_t uid, std::span<const PageHash> names, double now_s) {
  auto at = loads_.find(uid);
  if (at != loads_.end() && !at->second.read->done()) {
    if (now_s < at->second.give_up_at) return {.wait = true};
    ++stats_.reads_given_up;
    gave_up_.insert(uid);
    drop_load(at);
    at = loads_.end();
  }
  if (names.empty()) return {};
  if (promoting_.contains(names[0])) return {.wait = true};
  Load* load = at == loads_.end() ? nullptr : &at->second;
  if (load && !std::exchange(load->counted, true)) {
    const DiskRead& read = *load->read;
    if (read.num_read > 0) cost_.moved(Tier::kDisk, read.num_read, read.seconds);
    if (read.num_read < static_cast<int32_t>(read.images.names.size())) {
      ++stats_.reads_given_up;
      gave_up_.insert(uid);
    }
  }
  int32_t from_disk = 0;
  Found found{.pages = ready(load, names, from_disk)};
  if (disk_ && !load && !gave_up_.contains(uid) && found.pages < static_cast<int32_t>(names.size())) {
    const auto other = in_flight_.find(names[found.pages]);
    if (other != in_flight_.end() && other->second != uid) return {.wait = true};
    if (start_read(uid, names, found.pages, now_s)) return {.wait = true};
  }
  // What was read has been paid for. The rest is a question of cost.
  if (found.pages > from_disk && !cost_.worth(Tier::kHost, found.pages, int64_t{found.pages} * page_size_)) {
    stats_.refused_by_cost += found.pages;
    found.pages = 0;
  }
  return found;
}

/// Begins to read what the disk has beyond the first `have` names. False when that is nothing or not worth it.
bool KvTiers::start_read(uint64_t uid, std::span<const PageHash> names, int32_t have, double now_s) {
  const auto rest = names.subspan(have);
  std::vector<PageHash> wanted;
  size_t n = 0;
  for (; n < rest.size(); ++n) {
    if (in_host(rest[n]) >= 0) continue;
    if (!disk_->contains(rest[n])) break;
    wanted.push_back(rest[n]);
  }
  if (wanted.empty()) return false;
  const auto count = static_cast<int64_t>(wanted.size());
  const int64_t tokens = static_cast<int64_t>(n) * page_size_;
  if (!cost_.worth(Tier::kDisk, count, tokens)) {
    stats_.refused_by_cost += count;
    gave_up_.insert(uid);
    return false;
  }
  const int64_t bytes = count * copier_.page_bytes();
  if (load_bytes_ > 0 && load_bytes_ + bytes > kLoadBytes) return true;  // waits for its turn to read
  Load load;
  load.first = wanted[0];
  // Waiting as long as computing would take costs at most twice the better choice.
  load.give_up_at = now_s + (cost_.measured() ? std::max(kLeastPatience, cost_.compute_s(tokens)) : kPatience);
  load.read = disk_->read(std::move(wanted));
  // Whoever wants the same pages waits while they are in flight, so a name must not stay there without its load.
  const auto at = loads_.emplace(uid, std::move(load)).first;
  try {
    in_flight_[at->second.first] = uid;
  } catch (...) {
    loads_.erase(at);
    throw;
  }
  load_bytes_ += static_cast<int64_t>(at->second.read->images.data.size());
  return true;
}

void KvTiers::drop_load(std::unordered_map<uint64_t, Load>::iterator at) {
  load_bytes_ -= static_cast<int64_t>(at->second.read->images.data.size());
  in_flight_.erase(at->second.first);
  loads_.erase(at);
}

void KvTiers::promote(uint64_t uid, std::span<const PageHash> names, std::span<const int32_t> pages,
                      std::vector<Promotion>& out) {
  TS_CHECK(names.size() == pages.size() && !names.empty());
  const auto at = loads_.find(uid);
  const std::shared_ptr<DiskRead> read = at == loads_.end() ? nullptr : at->second.read;
  int32_t next = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    Promotion p{.page = pages[i]};
    int32_t k = next;
    while (read && k < read->num_read && !(read->images.names[k] == names[i])) ++k;
    if (read && k < read->num_read) {
      p.read = read;
      p.index = k;
      next = k + 1;
    } else {
      const int32_t slot = in_host(names[i]);
      TS_CHECK(slot >= 0, "a page that find() has found");
      p.slot = host_->index.pin(slot);
    }
    out.push_back(std::move(p));
  }
  promoting_.insert(names[0]);
}

void KvTiers::admitted(uint64_t uid, int32_t pool_pages, int32_t missing) {
  stats_.pool_hit_pages += pool_pages;
  stats_.recomputed_pages += missing;
  forget(uid);
}

void KvTiers::forget(uint64_t uid) {
  if (const auto at = loads_.find(uid); at != loads_.end()) drop_load(at);
  gave_up_.erase(uid);
}

void KvTiers::move(std::span<const Promotion> promotions) {
  move_down();
  if (promotions.empty()) return;
  moves_.clear();
  for (const Promotion& p : promotions)
    if (p.slot) moves_.push_back({.page = p.page, .slot = p.slot.slot()});
  if (!moves_.empty()) {
    std::sort(moves_.begin(), moves_.end(), [](auto& a, auto& b) { return a.page < b.page; });
    const TransferStats moved = copier_.up(moves_, host_->area);
    cost_.moved(Tier::kHost, static_cast<int64_t>(moved.pages), moved.seconds);
    stats_.host_up.add(moved);
    stats_.host_hit_pages += moved.pages;
  }
  for (size_t i = 0; i < promotions.size();) {  // consecutive images of one read together
    const Promotion& p = promotions[i];
    if (!p.read) {
      ++i;
      continue;
    }
    pages_.clear();
    size_t n = i;
    while (n < promotions.size() && promotions[n].read == p.read &&
           promotions[n].index == p.index + static_cast<int32_t>(n - i))
      pages_.push_back(promotions[n++].page);
    PageImages& images = p.read->images;
    stats_.disk_up.add(copier_.from_images(pages_, images.page(p.index), images.stride));
    stats_.disk_hit_pages += n - i;
    i = n;
  }
}

void KvTiers::move_down() {
  if (evicted_.empty()) return;
  std::sort(evicted_.begin(), evicted_.end(), [](const Named& a, const Named& b) { return a.at < b.at; });
  try {
    host_ ? down_to_host() : down_to_disk();
  } catch (const std::exception& e) {
    log_error(fmt::format("{} K/V pages are lost to the tiers: {}", evicted_.size(), e.what()));
    stats_.pages_lost += evicted_.size();
    slots_.clear();
    spilled_.clear();
  }
  evicted_.clear();
}

void KvTiers::down_to_host() {
  // Pages that are there already only become recent.
  std::erase_if(evicted_, [&](const Named& e) {
    const int32_t slot = host_->index.find(e.name);
    if (slot >= 0) host_->index.pin(slot).reset();
    return slot >= 0;
  });
  if (evicted_.empty()) return;
  if (!cost_.worth(Tier::kHost, 1, page_size_)) {
    stats_.pages_lost += evicted_.size();
    return;
  }
  slots_.clear();
  host_->index.allocate(static_cast<int32_t>(evicted_.size()), slots_);
  spill_host();
  moves_.clear();
  for (size_t i = 0; i < slots_.size(); ++i) moves_.push_back({.page = evicted_[i].at, .slot = slots_[i].slot()});
  stats_.host_down.add(copier_.down(moves_, host_->area));
  for (size_t i = 0; i < slots_.size(); ++i) host_->index.insert(evicted_[i].name, slots_[i].slot());
  stats_.pages_lost += evicted_.size() - slots_.size();
  TierIndex::release(slots_);
}

/// What host memory gave up goes to the disk, before its slots are written to.
void KvTiers::spill_host() {
  if (disk_) std::erase_if(spilled_, [&](const Named& s) { return disk_->contains(s.name); });
  if (!spilled_.empty() && disk_ && cost_.worth(Tier::kDisk, 1, page_size_)) {
    size_t taken = 0;
    if (auto images = disk_->write_buffer(static_cast<int32_t>(spilled_.size()))) {
      taken = images->names.size();
      for (size_t i = 0; i < taken; ++i) {
        images->names[i] = spilled_[i].name;
        copier_.slot_to_image(host_->area, spilled_[i].at, images->page(i));
      }
      disk_->write(std::move(*images));
    }
    stats_.pages_lost += spilled_.size() - taken;
  } else {
    stats_.pages_lost += spilled_.size();
  }
  spilled_.clear();
}

void KvTiers::down_to_disk() {
  if (!disk_) {
    stats_.pages_lost += evicted_.size();
    return;
  }
  std::erase_if(evicted_, [&](const Named& e) { return disk_->contains(e.name); });
  if (evicted_.empty()) return;
  size_t taken = 0;
  if (cost_.worth(Tier::kDisk, 1, page_size_)) {
    if (auto images = disk_->write_buffer(static_cast<int32_t>(evicted_.size()))) {
      taken = images->names.size();
      pages_.clear();
      for (size_t i = 0; i < taken; ++i) {
        images->names[i] = evicted_[i].name;
        pages_.push_back(evicted_[i].at);
      }
      copier_.to_images(pages_, images->data.data(), images->stride);
      disk_->write(std::move(*images));
    }
  }
  stats_.pages_lost += evicted_.size() - taken;
}

void KvTiers::computed(const PageHash& name) {
  if (!disk_ || config_.disk_write_rate == 0) return;
  if (ahead_.size() >= kMostAhead) ahead_.pop_front();
  ahead_.push_back(name);
}

void KvTiers::measured(int64_t prompt_rows, int64_t rows, double seconds) {
  if (mostly_prompts(prompt_rows, rows)) cost_.computed(rows, seconds);
}

/// Pages in the cache go to the disk too, as far as the budget of bytes per second reaches.
void KvTiers::end_step(double now_s) {
  const auto rate = static_cast<double>(config_.disk_write_rate);
  const auto page = static_cast<double>(copier_.page_bytes());
  const double passed = std::max(0.0, now_s - last_step_s_);
  last_step_s_ = now_s;
  if (ahead_.empty()) return;
  // At most a quarter of a second is saved up, so that a burst does not hold a step up.
  ahead_budget_ = std::min(ahead_budget_ + rate * passed, std::max(rate / 4, page));
  try {
    ahead_budget_ -= page * static_cast<double>(write_ahead(ahead_budget_));
  } catch (const std::exception& e) {  // memory is short: these will not be there after a restart
    log_error(fmt::format("K/V pages are not written to disk: {}", e.what()));
    ahead_.clear();
  }
}

/// Hands pages over whose bytes add up to `budget` at most; returns how many.
size_t KvTiers::write_ahead(double budget) {
  const auto page = static_cast<double>(copier_.page_bytes());
  std::vector<PageHash> names;
  pages_.clear();
  while (!ahead_.empty() && budget >= page) {
    const PageHash name = ahead_.front();
    ahead_.pop_front();
    const int32_t at = lookup_ ? lookup_(name) : -1;
    if (at < 0 || disk_->contains(name)) continue;  // went down already, or never will
    names.push_back(name);
    pages_.push_back(at);
    budget -= page;
  }
  if (names.empty()) return 0;
  auto images = disk_->write_buffer(static_cast<int32_t>(names.size()));
  if (!images) {
    // The queue is full: again later; the disk refuses: these will not be there after a restart.
    if (disk_->accepts()) ahead_.insert(ahead_.begin(), names.begin(), names.end());
    return 0;
  }
  const size_t taken = images->names.size();
  std::copy_n(names.begin(), taken, images->names.begin());
  copier_.to_images(std::span(pages_).first(taken), images->data.data(), images->stride);
  disk_->write(std::move(*images));
  ahead_.insert(ahead_.begin(), names.begin() + static_cast<int64_t>(taken), names.end());
  return taken;
}

void KvTiers::flush(double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr double kBatch = 16 << 20;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  try {
    while (!ahead_.empty() && disk_->accepts() && Clock::now() < end) {
      if (write_ahead(std::max(kBatch, static_cast<double>(copier_.page_bytes()))) == 0 && !ahead_.empty())
        std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the queue is full
    }
  } catch (const std::exception& e) {
    log_error(fmt::format("K/V pages are not written to disk: {}", e.what()));
  }
}

void KvTiers::wait(double seconds) {
  if (disk_ && loading())
    disk_->wait_for_read(seconds);
  else
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

TierStats KvTiers::stats() const {
  TierStats s = stats_;
  if (host_) s.host_pages = host_->index.num_pages();
  if (disk_) s.disk = disk_->stats();
  s.loading = static_cast<int64_t>(loads_.size());
  s.prefill_s_per_token = cost_.compute_s(1);
  s.recompute_s_per_page = cost_.compute_s(page_size_);
  s.host_s_per_page = cost_.move_s(Tier::kHost, 1);
  s.disk_s_per_page = cost_.move_s(Tier::kDisk, 1);
  return s;
}

void KvTiers::access(TierAccess& a) const {
  a.pages = {static_cast<double>(stats_.pool_hit_pages), static_cast<double>(stats_.host_hit_pages),
             static_cast<double>(stats_.disk_hit_pages), static_cast<double>(stats_.recomputed_pages)};
  a.latency_s = {0, cost_.move_s(Tier::kHost, 1), cost_.move_s(Tier::kDisk, 1), cost_.compute_s(page_size_)};
}

void KvTiers::check_invariants() const {
  if (host_) host_->index.check_invariants();
  if (disk_) disk_->check_invariants();
  TS_CHECK(in_flight_.size() <= loads_.size());
}

}  // namespace tinyserve
