#include "kv/placement/placing.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/check.h"

namespace tinyserve {

void fill(std::span<int32_t> out, int32_t first, int32_t count) {
  std::iota(out.begin(), out.begin() + count, first);
}

int32_t grow_in_place(const PagePool& pool, const PageRequest& request, std::span<int32_t> out) {
  if (request.sequence_pages.empty()) return 0;
  const int32_t next = request.sequence_pages.back() + 1;
  const RunIndex& runs = pool.runs();
  if (next >= pool.num_pages() || !runs.is_free(next)) return 0;
  const int32_t count =
      out.size() == 1 ? 1 : std::min(static_cast<int32_t>(out.size()), runs.next_used(next) - next);
  fill(out, next, count);
  return count;
}

void split_over_longest(const PagePool& pool, std::span<int32_t> out, int32_t skip) {
  const RunIndex& runs = pool.runs();
  using Family = RunIndex::Family;
  size_t placed = 0;
  std::vector<RunIndex::Run> longest;
  // Classes from the top, both families at each: a class holds lengths within 1/16, so the order inside is found by
  // sorting the class alone.
  for (int32_t c = RunIndex::kNumClasses - 1; placed < out.size(); --c) {
    c = std::max(runs.last_class(Family::kPlain, c), runs.last_class(Family::kPromised, c));
    TS_CHECK(c != RunIndex::kNone, "more pages asked for than are free");
    longest.clear();
    size_t found = placed;
    for (Family family : {Family::kPlain, Family::kPromised}) {
      for (int32_t h = runs.head(family, c); h != RunIndex::kNone; h = runs.next(family, h)) {
        if (runs.run(h).start == skip) continue;
        longest.push_back(runs.run(h));
        found += runs.run(h).length;
        if (c < RunIndex::kExactLengths && found >= out.size()) break;  // all alike
      }
    }
    std::sort(longest.begin(), longest.end(), [](const auto& a, const auto& b) {
      return a.length != b.length ? a.length > b.length : a.start < b.start;
    });
    for (const RunIndex::Run& run : longest) {
      const int32_t count = static_cast<int32_t>(std::min<size_t>(run.length, out.size() - placed));
      fill(out.subspan(placed), run.start, count);
      placed += count;
      if (placed == out.size()) break;
    }
  }
}

}  // namespace tinyserve
