// Pages by mean and standard deviation of their keys, channel by channel (as UNIQUE, arXiv 2605.27740): the log mass of a page whose keys
// were Gaussian. Both BF16, as K.

#include <algorithm>
#include <cmath>

#include "select/choosing_selector.h"
#include "select/page_summaries.h"
#include "select/policies/makers.h"

namespace tinyserve {
namespace {

class MomentsSelector final : public ChoosingSelector {
 public:
  explicit MomentsSelector(const PolicyContext& c) : ChoosingSelector(c.config, true) {}
  void appended(const AppendedRows& rows) override { moments_.forget(rows.layer, rows.full_pages); }

 private:
  double score(const View& v, std::vector<float>& scores) override {
    const int32_t d = v.head_dim(), page = v.args.cache.page_size, pages = v.tokens() / page;
    std::vector<float> mass(static_cast<size_t>(pages)), best(static_cast<size_t>(pages));
    for (int32_t g = 0; g < v.group(); ++g) {
      for (int32_t p = 0; p < pages; ++p) {
        const std::vector<float>& m = moments_.get(v.layer, v.head, v.table[p], 2 * d, [&](float* to) { make(v, p, to); });
        float mean = 0, variance = 0;
        for (int32_t i = 0; i < d; ++i) {
          const float q = v.args.scale * v.query(g)[i];
          mean += q * m[static_cast<size_t>(i)];
          variance += q * q * m[static_cast<size_t>(d + i)];
        }
        mass[static_cast<size_t>(p)] = mean + variance / 2;
      }
      if (pages > 0) raise_to_softmax(mass, best);
    }
    for (int32_t t = 0; t < pages * page; ++t) scores[static_cast<size_t>(t)] = best[static_cast<size_t>(t / page)];
    return static_cast<double>(pages) * 2 * d * 2;
  }

  // [mean, variance]
  static void make(const View& v, int32_t page, float* m) {
    const int32_t d = v.head_dim(), size = v.args.cache.page_size;
    std::vector<float> k(static_cast<size_t>(d));
    std::fill_n(m, 2 * d, 0.0f);
    for (int32_t t = 0; t < size; ++t) {
      v.key(page * size + t, k.data());
      for (int32_t i = 0; i < d; ++i) {
        m[i] += k[static_cast<size_t>(i)] / static_cast<float>(size);
        m[d + i] += k[static_cast<size_t>(i)] * k[static_cast<size_t>(i)] / static_cast<float>(size);
      }
    }
    for (int32_t i = 0; i < d; ++i) m[d + i] = std::max(0.0f, m[d + i] - m[i] * m[i]);
  }

  PageSummaries moments_;
};

}  // namespace

std::unique_ptr<Selector> make_moments(const PolicyContext& context) { return std::make_unique<MomentsSelector>(context); }

}  // namespace tinyserve
