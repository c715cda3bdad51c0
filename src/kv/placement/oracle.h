#pragma once
// For tests and benchmarks: the placement of least cost among all there are, and random pools to look for it in.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kv/page_pool.h"
#include "kv/placement/objective.h"

namespace tinyserve {

/// The cost of every placement of a request in a pool, O(pages x request). Splits, which are no placements, are not in
/// it.
class PlacementOracle {
 public:
  PlacementOracle(const PagePool& pool, const PlacementObjective& objective, const PageRequest& request)
      : costs_(pool.num_pages(), kImpossible) {
    const RunIndex& runs = pool.runs();
    for (int32_t page = 0; page < pool.num_pages();) {
      if (!runs.is_free(page)) {
        ++page;
        continue;
      }
      const RunIndex::Run& run = runs.run_of(page);
      for (int32_t start = run.start; start + request.count <= run.end(); ++start) {
        costs_[start] = objective.cost(request, run, start);
        if (best_ < 0 || costs_[start] < costs_[best_]) best_ = start;
      }
      page = run.end();
    }
  }

  bool possible() const { return best_ >= 0; }
  int32_t best() const { return best_; }
  double least() const { return costs_[best_]; }
  double cost(int32_t start) const { return costs_[start]; }

 private:
  static constexpr double kImpossible = std::numeric_limits<double>::infinity();
  std::vector<double> costs_;
  int32_t best_ = -1;
};

/// What stands in for a prefix cache: ranks cached pages by the pool's heat. O(pages) a question.
class HeatRanking final : public EvictionListener {
 public:
  explicit HeatRanking(PagePool& pool) : pool_(pool) { pool.set_listener(this); }
  ~HeatRanking() override { pool_.set_listener(nullptr); }
  void on_evict(int32_t) override {}
  /// As a prefix cache's, some tenths of a use.
  float price(int32_t page) const override { return 0.1f * pool_.heat(page); }
  int32_t coldest() override { return next(-std::numeric_limits<double>::infinity(), -1); }
  int32_t coldest_after(int32_t page) const override { return next(pool_.heat_time(page), page); }

 private:
  int32_t next(double heat, int32_t after) const {
    int32_t best = -1;
    double least = 0;
    for (int32_t page = 0; page < pool_.num_pages(); ++page) {
      if (pool_.state(page) != PageState::kCached) continue;
      const double h = pool_.heat_time(page);
      if (h < heat || (h == heat && page <= after)) continue;
      if (best < 0 || h < least) best = page, least = h;
    }
    return best;
  }
  PagePool& pool_;
};

/// A pool in the middle of its life: sequences of random sizes have begun, grown and ended in it, by its own policy.
/// With `cached`, ended ones leave content of their own heat behind.
class RandomPool {
 public:
  RandomPool(int32_t num_pages, const PlacementConfig& config, uint32_t seed, bool cached)
      : random_(seed), cached_(cached), pool_(num_pages, config), ranking_(pool_) {
    fill_ = uniform(0.4, 0.97);
    largest_ = std::max(2, static_cast<int32_t>(num_pages * std::exp2(-uniform(3, 7))));
    expects_ = below(3) > 0;
    for (int32_t i = 0; i < 40 + num_pages / 4; ++i) step();
  }
  ~RandomPool() { sequences_.clear(); }

  PagePool& pool() { return pool_; }
  /// The next request; valid until the next call.
  PageRequest request() {
    const auto size = [&] { return 1 + static_cast<int32_t>(std::exp2(uniform(0, std::log2(largest_)))) % largest_; };
    asks_ = sequences_.empty() || below(2) == 0 ? -1 : below(static_cast<int32_t>(sequences_.size()));
    places_.clear();
    PageRequest request;
    if (asks_ >= 0) {
      Sequence& s = *sequences_[asks_];
      for (const PageRef& ref : s.refs) places_.push_back(ref.page());
      request = {
          .count = 1, .sequence_pages = places_, .sequence = s.uid, .expected_pages = std::max(0, s.expected - 1)};
    } else {
      request = {.count = size(), .sequence = ++uid_, .expected_pages = expects_ ? below(largest_) : 0};
    }
    while (request.count > pool_.num_free()) end(below(static_cast<int32_t>(sequences_.size())));
    if (asks_ >= static_cast<int32_t>(sequences_.size())) return this->request();
    return request;
  }
  /// Gives it what the policy chooses; returns the first page.
  int32_t allocate(const PageRequest& request) {
    if (asks_ < 0)
      sequences_.push_back(std::make_unique<Sequence>(Sequence{request.sequence, request.expected_pages, {}}));
    Sequence& s = asks_ < 0 ? *sequences_.back() : *sequences_[asks_];
    const size_t had = s.refs.size();
    if (!pool_.allocate(request, s.refs)) return -1;
    s.expected = request.expected_pages;
    return s.refs[had].page();
  }
  /// A request, and ends until there is room.
  void step() {
    allocate(request());
    for (int32_t i = below(8); i > 0; --i) pool_.tick();
    while (pool_.num_used() > fill_ * pool_.num_pages()) end(below(static_cast<int32_t>(sequences_.size())));
  }

 private:
  struct Sequence {
    uint64_t uid;
    int32_t expected;
    std::vector<PageRef> refs;
  };
  int32_t below(int32_t n) { return static_cast<int32_t>(random_() % static_cast<uint32_t>(n)); }
  double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(random_); }
  void end(int32_t which) {
    std::swap(sequences_[which], sequences_.back());
    std::vector<PageRef>& refs = sequences_.back()->refs;
    if (cached_ && below(3) > 0) {
      const int32_t uses = below(6);
      for (const PageRef& ref : refs) {
        pool_.keep(ref.page());
        for (int32_t i = 0; i < uses; ++i) pool_.touch(ref.page());
      }
    }
    while (!refs.empty()) refs.pop_back();
    sequences_.pop_back();
  }

  std::mt19937 random_;
  const bool cached_;
  PagePool pool_;
  HeatRanking ranking_;
  double fill_ = 0;
  int32_t largest_ = 1, asks_ = -1;
  bool expects_ = false;
  uint64_t uid_ = 0;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<int32_t> places_;
};

}  // namespace tinyserve
