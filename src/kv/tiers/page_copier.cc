#include "kv/tiers/page_copier.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>

#include "base/check.h"

namespace tinyserve {
namespace {

constexpr int32_t kBounceSlots = 64;

double steady_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

PageCopier::PageCopier(ops::Ops& ops, std::span<const PageTensor> tensors)
    : ops_(ops), tensors_(tensors.begin(), tensors.end()) {
  TS_CHECK(!tensors_.empty());
  for (const PageTensor& t : tensors_) {
    TS_CHECK(t.page_bytes > 0);
    page_bytes_ += t.page_bytes;
  }
}

TransferStats PageCopier::copy(std::span<const PageMove> moves, HostArea& area, bool down) {
  TransferStats stats;
  const double start = steady_s();
  const bool on_host = ops_.on_host();
  for (size_t i = 0; i < moves.size();) {
    size_t run = 1;
    while (i + run < moves.size() && moves[i + run].page == moves[i].page + static_cast<int32_t>(run) &&
           moves[i + run].slot == moves[i].slot + static_cast<int32_t>(run))
      ++run;
    for (int32_t t = 0; t < num_tensors(); ++t) {
      const size_t bytes = run * tensors_[t].page_bytes;
      std::byte* device = tensors_[t].data + moves[i].page * tensors_[t].page_bytes;
      std::byte* host = area.at(t, moves[i].slot);
      if (on_host)
        std::memcpy(down ? host : device, down ? device : host, bytes);
      else if (down)
        ops_.download(host, device, bytes);
      else
        ops_.upload(device, host, bytes);
    }
    stats.transfers += tensors_.size();
    i += run;
  }
  stats.pages = moves.size();
  stats.bytes = moves.size() * page_bytes();
  stats.seconds = steady_s() - start;
  return stats;
}

double PageCopier::large_copy_gb_per_s(int64_t bytes) {
  const auto size = static_cast<size_t>(bytes);
  const std::unique_ptr<ops::Memory> device = ops_.allocate(size);
  AlignedBuffer host(size);
  std::memset(host.data(), 1, size);  // both are resident before the clock starts
  ops_.upload(device->data, host.data(), size);
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const double start = steady_s();
    ops_.download(host.data(), device->data, size);
    best = std::max(best, static_cast<double>(bytes) / 1e9 / (steady_s() - start));
  }
  return best;
}

HostArea& PageCopier::bounce() {
  if (bounce_.empty()) bounce_.emplace_back(kBounceSlots, tensors_);
  return bounce_[0];
}

void PageCopier::slot_to_image(HostArea& from, int32_t slot, std::byte* image) const {
  for (int32_t t = 0; t < num_tensors(); image += tensors_[t++].page_bytes)
    std::memcpy(image, from.at(t, slot), tensors_[t].page_bytes);
}

TransferStats PageCopier::to_images(std::span<const int32_t> pages, std::byte* images, int64_t stride) {
  TransferStats stats;
  const double start = steady_s();
  if (ops_.on_host()) {
    for (size_t i = 0; i < pages.size(); ++i) {
      std::byte* image = images + i * stride;
      for (const PageTensor& t : tensors_) {
        std::memcpy(image, t.data + pages[i] * t.page_bytes, t.page_bytes);
        image += t.page_bytes;
      }
    }
    stats = {.pages = pages.size(), .bytes = pages.size() * page_bytes(), .transfers = pages.size() * num_tensors()};
  } else {
    std::vector<PageMove> moves;
    for (size_t done = 0; done < pages.size(); done += moves.size()) {
      moves.clear();
      for (size_t i = done; i < std::min(pages.size(), done + kBounceSlots); ++i)
        moves.push_back({.page = pages[i], .slot = static_cast<int32_t>(i - done)});
      stats.add(copy(moves, bounce(), true));
      for (size_t i = 0; i < moves.size(); ++i)
        slot_to_image(bounce(), static_cast<int32_t>(i), images + (done + i) * stride);
    }
  }
  stats.seconds = steady_s() - start;
  return stats;
}

TransferStats PageCopier::from_images(std::span<const int32_t> pages, const std::byte* images, int64_t stride) {
  TransferStats stats;
  const double start = steady_s();
  if (ops_.on_host()) {
    for (size_t i = 0; i < pages.size(); ++i) {
      const std::byte* image = images + i * stride;
      for (const PageTensor& t : tensors_) {
        std::memcpy(t.data + pages[i] * t.page_bytes, image, t.page_bytes);
        image += t.page_bytes;
      }
    }
    stats = {.pages = pages.size(), .bytes = pages.size() * page_bytes(), .transfers = pages.size() * num_tensors()};
  } else {
    std::vector<PageMove> moves;
    for (size_t done = 0; done < pages.size(); done += moves.size()) {
      moves.clear();
      for (size_t i = done; i < std::min(pages.size(), done + kBounceSlots); ++i) {
        const auto slot = static_cast<int32_t>(i - done);
        moves.push_back({.page = pages[i], .slot = slot});
        const std::byte* image = images + i * stride;
        for (int32_t t = 0; t < num_tensors(); image += tensors_[t++].page_bytes)
          std::memcpy(bounce().at(t, slot), image, tensors_[t].page_bytes);
      }
      stats.add(copy(moves, bounce(), false));
    }
  }
  stats.seconds = steady_s() - start;
  return stats;
}

}  // namespace tinyserve
