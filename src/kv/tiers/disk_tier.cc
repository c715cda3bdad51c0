#include "kv/tiers/disk_tier.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace tinyserve {
namespace {

double steady_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Lengths of the leading parts of `slots` that one call can move: consecutive slots of one segment.
int32_t run_length(std::span<const int32_t> slots, int32_t segment_slots) {
  size_t n = 1;
  while (n < slots.size() && slots[n] == slots[0] + static_cast<int32_t>(n) &&
         slots[n] / segment_slots == slots[0] / segment_slots)
    ++n;
  return static_cast<int32_t>(n);
}

}  // namespace

QueueRoom::~QueueRoom() {
  if (tier_) tier_->give_back(bytes_);
}

std::unique_ptr<DiskTier> DiskTier::open(const DiskTierConfig& config) {
  std::string why;
  auto file = open_disk_file(config.path, why);
  if (!file) {
    log_warn(fmt::format("{}: no K/V pages are kept there: {}", config.path.string(), why));
    return nullptr;
  }
  return open(std::move(file), config);
}

std::unique_ptr<DiskTier> DiskTier::open(std::unique_ptr<DiskFile> file, const DiskTierConfig& config) {
  std::string why;
  auto store = DiskStore::open(std::move(file), config.store, config.max_bytes, why);
  if (!store) {
    log_warn(fmt::format("{}: no K/V pages are kept there: {}", config.path.string(), why));
    return nullptr;
  }
  if (!why.empty()) log_warn(fmt::format("{}: {}", config.path.string(), why));
  std::unique_ptr<DiskTier> tier(new DiskTier(std::move(store), config));
  tier->thread_ = std::thread([t = tier.get()] { t->loop(); });
  return tier;
}

DiskTier::DiskTier(std::unique_ptr<DiskStore> store, const DiskTierConfig& config)
    : config_(config),
      hash_key_(store->hash_key()),
      store_(std::move(store)),
      index_(store_->max_slots(), store_->num_slots(), [this](int32_t, const PageHash&) { ++stats_.evicted; }) {
  restore(config.path);
}

/// The oldest first, so that pages are evicted in that order.
void DiskTier::restore(const std::filesystem::path& path) {
  std::vector<FoundPage> found;
  int32_t torn = 0;
  if (const int error = store_->scan(found, torn); error != 0) {
    log_warn(fmt::format("{}: its pages are lost: {}", path.string(), std::strerror(-error)));
    found.clear();
  } else if (torn > 0) {
    log_warn(fmt::format("{}: {} torn records ignored, {} pages found", path.string(), torn, found.size()));
  } else if (!found.empty()) {
    log_info(fmt::format("{}: {} pages found", path.string(), found.size()));
  }
  for (const FoundPage& page : found) index_.restore(page.name, page.slot);
  stats_.pages_found = found.size();
  stats_.max_pages = store_->max_slots();
}

DiskTier::~DiskTier() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool DiskTier::contains(const PageHash& name) const {
  const std::lock_guard lock(mutex_);
  return index_.find(name) >= 0 || queued_.contains(name);
}

int32_t DiskTier::match(std::span<const PageHash> names) const {
  const std::lock_guard lock(mutex_);
  int32_t n = 0;
  while (n < static_cast<int32_t>(names.size()) && (index_.find(names[n]) >= 0 || queued_.contains(names[n])))
    ++n;
  return n;
}

std::optional<PageImages> DiskTier::write_buffer(int32_t num_pages) {
  const int64_t stride = store_->slot_bytes();
  int64_t count = num_pages;
  {
    const std::lock_guard lock(mutex_);
    if (writes_paused_until_ > steady_s()) count = 0;
    // One buffer is always taken when nothing waits, however large a page is.
    const int64_t room = queued_bytes_ == 0 ? std::max<int64_t>(1, config_.queue_bytes / stride)
                                            : (config_.queue_bytes - queued_bytes_) / stride;
    count = std::clamp<int64_t>(room, 0, count);
    stats_.turned_away += num_pages - count;
    if (count == 0) return std::nullopt;
    queued_bytes_ += count * stride;
  }
  PageImages images;
  images.room = QueueRoom(*this, count * stride);
  images.stride = stride;
  images.names.resize(count);
  images.data = AlignedBuffer(count * stride);
  return images;
}

/// Under the mutex.
void DiskTier::forget_queued(std::span<const PageHash> names) {
  for (const PageHash& name : names)
    if (const auto at = queued_.find(name); --at->second == 0) queued_.erase(at);
}

void DiskTier::give_back(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  queued_bytes_ -= bytes;
}

bool DiskTier::writing() const {
  const std::lock_guard lock(mutex_);
  return queued_bytes_ > 0;
}

bool DiskTier::accepts() const {
  const std::lock_guard lock(mutex_);
  return writes_paused_until_ <= steady_s();
}

void DiskTier::write(PageImages images) {
  {
    const std::lock_guard lock(mutex_);
    size_t named = 0;
    try {
      for (; named < images.names.size(); ++named) ++queued_[images.names[named]];
      writes_.push_back(std::move(images));
    } catch (...) {  // nobody would ever take these names off
      forget_queued(std::span(images.names).first(named));
      throw;
    }
  }
  work_.notify_one();
}

std::shared_ptr<DiskRead> DiskTier::read(std::vector<PageHash> names) {
  auto read = std::make_shared<DiskRead>();
  read->images.stride = store_->slot_bytes();
  read->images.data = AlignedBuffer(names.size() * store_->slot_bytes());
  read->images.names = std::move(names);
  {
    const std::lock_guard lock(mutex_);
    reads_.push_back(read);
  }
  work_.notify_one();
  return read;
}

void DiskTier::wait_for_read(double seconds) {
  std::unique_lock lock(mutex_);
  ended_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return reads_ended_ != reads_seen_; });
  reads_seen_ = reads_ended_;
}

void DiskTier::drain() {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [&] { return writes_.empty() && reads_.empty() && !busy_; });
}

void DiskTier::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return stopping_ || !reads_.empty() || !writes_.empty(); });
    if (stopping_) reads_.clear();
    busy_ = true;
    // Somebody waits for reads, so they go first; but not before the pages they want are written.
    if (!reads_.empty() && (writes_.empty() || !waits_for_write(*reads_.front()))) {
      const std::shared_ptr<DiskRead> read = std::move(reads_.front());
      reads_.pop_front();
      lock.unlock();
      if (read.use_count() > 1) run_read(*read);
      read->done_.store(true, std::memory_order_release);
      lock.lock();
      ++reads_ended_;
    } else if (!writes_.empty()) {
      PageImages images = std::move(writes_.front());
      writes_.pop_front();
      const std::vector<PageHash> names = images.names;
      lock.unlock();
      run_write(images);
      lock.lock();
      forget_queued(names);
      queued_bytes_ -= images.room.take();
    } else if (stopping_) {
      return;
    }
    busy_ = false;
    ended_.notify_all();
  }
}

bool DiskTier::waits_for_write(const DiskRead& read) const {
  return std::any_of(read.images.names.begin(), read.images.names.end(),
                     [&](const PageHash& name) { return index_.find(name) < 0 && queued_.contains(name); });
}

/// Slots for `count` pages, growing the file first; fewer when the limit is small.
void DiskTier::reserve_slots(int32_t count, std::vector<SlotRef>& refs) {
  std::unique_lock lock(mutex_);
  while (index_.num_empty() < count && index_.available() < index_.num_slots() && growth_paused_until_ <= steady_s()) {
    lock.unlock();
    const int error = store_->grow();
    lock.lock();
    if (error) {
      failed("the file cannot grow", error);
      growth_paused_until_ = steady_s() + config_.retry_s;
      break;
    }
    index_.set_available(store_->num_slots());
  }
  index_.allocate(count, refs);
}

void DiskTier::run_write(PageImages& images) {
  const double start = steady_s();
  // Pages that are there already, or twice in the batch, are left out.
  size_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    std::vector<PageHash>& names = images.names;
    for (size_t i = 0; i < names.size(); ++i) {
      if (index_.find(names[i]) >= 0 || std::find(names.begin(), names.begin() + count, names[i]) != names.begin() + count)
        continue;
      if (i != count) std::memcpy(images.page(count), images.page(i), images.stride);
      names[count++] = names[i];
    }
    names.resize(count);
  }
  if (count == 0) return;
  std::vector<SlotRef> refs;
  reserve_slots(static_cast<int32_t>(count), refs);
  std::vector<int32_t> slots;
  for (const SlotRef& ref : refs) slots.push_back(ref.slot());
  TransferStats moved;
  const std::span<const PageHash> names(images.names);
  size_t done = 0;
  int error = 0;
  while (done < slots.size() && error == 0) {
    const int32_t run = run_length(std::span(slots).subspan(done), store_->segment_slots());
    error = store_->write(slots[done], names.subspan(done, run), {images.page(done), run * static_cast<size_t>(images.stride)});
    if (error) break;
    const std::lock_guard lock(mutex_);
    for (int32_t i = 0; i < run; ++i) index_.insert(names[done + i], slots[done + i]);
    done += run;
    ++moved.transfers;
    moved.bytes += run * static_cast<uint64_t>(store_->page_bytes());
    moved.pages += run;
  }
  moved.seconds = steady_s() - start;
  const std::lock_guard lock(mutex_);
  TierIndex::release(refs);  // slots without a name are empty again
  stats_.turned_away += count - done;
  stats_.written.add(moved);
  if (error) {
    failed("a write failed", error);
    writes_paused_until_ = steady_s() + config_.retry_s;
  } else if (done > 0) {
    write_trouble_ = false;
  }
}

/// Counts and says so, once until a write works again. Under the mutex.
void DiskTier::failed(const char* what, int error) {
  ++stats_.write_errors;
  if (std::exchange(write_trouble_, true)) return;
  log_warn(fmt::format("{}: {}: {}; going on with what is there", config_.path.string(), what, std::strerror(-error)));
}

void DiskTier::run_read(DiskRead& read) {
  const double start = steady_s();
  const std::span<const PageHash> names(read.images.names);
  std::vector<SlotRef> refs;
  std::vector<int32_t> slots;
  {
    const std::lock_guard lock(mutex_);
    for (const PageHash& name : names) {
      const int32_t slot = index_.find(name);
      if (slot < 0) break;
      refs.push_back(index_.pin(slot));
      slots.push_back(slot);
    }
  }
  TransferStats moved;
  std::vector<uint8_t> ok(slots.size(), 0);
  size_t at = 0;
  int error = 0;
  while (at < slots.size()) {
    const int32_t run = run_length(std::span(slots).subspan(at), store_->segment_slots());
    error = store_->read(slots[at], names.subspan(at, run), {read.images.page(at), run * static_cast<size_t>(read.images.stride)},
                         std::span(ok).subspan(at, run));
    if (error) break;
    ++moved.transfers;
    moved.bytes += run * static_cast<uint64_t>(store_->page_bytes());
    moved.pages += run;
    const auto part = std::span(ok).subspan(at, run);
    const auto bad = std::find(part.begin(), part.end(), 0);
    if (bad != part.end()) {
      const auto i = at + (bad - part.begin());
      forget_broken(slots[i], names[i]);
      break;
    }
    at += run;
  }
  read.num_read = static_cast<int32_t>(std::find(ok.begin(), ok.end(), 0) - ok.begin());
  read.seconds = moved.seconds = steady_s() - start;
  const std::lock_guard lock(mutex_);
  TierIndex::release(refs);
  stats_.read.add(moved);
  if (error) {
    ++stats_.read_errors;
    // Whatever cannot be read is not looked up again.
    for (size_t i = at; i < slots.size(); ++i) index_.forget(slots[i]);
    if (!std::exchange(read_trouble_, true))
      log_warn(fmt::format("{}: a read failed: {}; computing again what was there", config_.path.string(),
                           std::strerror(-error)));
  } else if (moved.transfers > 0) {
    read_trouble_ = false;
  }
}

void DiskTier::forget_broken(int32_t slot, const PageHash& name) {
  store_->erase(slot);
  const std::lock_guard lock(mutex_);
  if (index_.find(name) == slot) index_.forget(slot);
  if (stats_.corrupt++ == 0)
    log_warn(fmt::format("{}: a page is not what was written; it is computed again, as are others like it",
                         config_.path.string()));
}

DiskStats DiskTier::stats() const {
  const std::lock_guard lock(mutex_);
  DiskStats s = stats_;
  s.pages = index_.num_pages();
  s.queued_bytes = queued_bytes_;
  return s;
}

void DiskTier::check_invariants() const {
  const std::lock_guard lock(mutex_);
  index_.check_invariants();
}

}  // namespace tinyserve
