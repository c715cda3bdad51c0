#pragma once
// How evenly pages are used over time: the temporal part of fragmentation (ALGORITHMS section 1). Time is cut into
// windows of some steps; A(t, j) counts how often page j was read or written in window t. What is wanted is
//
//   F_temporal = sum over t of w(t) * sum over j of |A(t, j) - A(t-1, j)| / (M * mean A)
//
// Both sums over pages are kept up to date with every count that changes, so a window costs what is counted in it and
// nothing for the pages that nobody touched. Counts may go down again within a window: what a sequence reads is added
// for all its pages at once, and pages it got in the middle of the window are given their part back (PageTable).

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

namespace tinyserve {

class AccessWindows {
 public:
  static constexpr int32_t kWindows = 16;         ///< kept
  static constexpr double kHalfLifeWindows = 4;   ///< of the weights w(t), which add up to 1

  explicit AccessWindows(int32_t num_pages) : pages_(num_pages) {}

  void add(int32_t page, int32_t count) {
    Page& p = now(page);
    const int32_t before = p.count - p.previous, after = before + count;
    difference_ += (after < 0 ? -after : after) - (before < 0 ? -before : before);
    p.count += count;
    sum_ += count;
  }
  /// What is known about `from` is `to`'s from now on, and the other way round: content has moved.
  void exchange(int32_t from, int32_t to) { std::swap(pages_[from], pages_[to]); }
  /// Ends a window.
  void close();
  uint32_t window() const { return window_; }  ///< its number

  /// F_temporal over the closed windows; 0 when fewer than two are, or nothing was read.
  double temporal() const;

 private:
  struct Page {
    int32_t count = 0, previous = 0;  // in `window`, and the one before it
    uint32_t window = 0;
  };
  struct Closed {
    int64_t sum = 0, difference = 0;
  };
  Page& now(int32_t page) {
    Page& p = pages_[page];
    if (p.window != window_) p = {0, p.window + 1 == window_ ? p.count : 0, window_};
    return p;
  }

  std::vector<Page> pages_;
  uint32_t window_ = 0;
  int64_t sum_ = 0, difference_ = 0;  // of the open window
  std::array<Closed, kWindows> closed_{};
};

}  // namespace tinyserve
