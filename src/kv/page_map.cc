#include "kv/page_map.h"

#include <algorithm>
#include <cmath>

namespace tinyserve {

bool extend_page_map(PageMap& map, int32_t& next_page, int32_t count, const PagePool& pool) {
  const int32_t end = std::min(pool.num_pages(), next_page + count);
  for (; next_page < end; ++next_page) {
    PageSpan span{.length = 1, .state = pool.state(next_page)};
    if (span.state != PageState::kEmpty) {
      span.heat = static_cast<int8_t>(std::lround(std::log2(std::max(0.0, double{pool.heat(next_page)}) + 1)));
      span.references = static_cast<int16_t>(std::min(pool.ref_count(next_page), 32767));
      span.owner = pool.owner(next_page);
    }
    if (!map.spans.empty()) {
      span.length = map.spans.back().length;
      const bool alike = span == map.spans.back();
      span.length = 1;
      if (alike) {
        ++map.spans.back().length;
        continue;
      }
    }
    map.spans.push_back(span);
  }
  return next_page == pool.num_pages();
}

}  // namespace tinyserve
