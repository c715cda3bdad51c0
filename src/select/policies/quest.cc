// Quest (arXiv 2406.10774): a page is as good as the largest logit that its bounding box allows. Boxes are BF16, as K.

#include <algorithm>

#include "select/choosing_selector.h"
#include "select/page_summaries.h"
#include "select/policies/makers.h"

namespace tinyserve {
namespace {

class QuestSelector final : public ChoosingSelector {
 public:
  explicit QuestSelector(const PolicyContext& c) : ChoosingSelector(c.config, true) {}
  void appended(const AppendedRows& rows) override { boxes_.forget(rows.layer, rows.full_pages); }

 private:
  double score(const View& v, std::vector<float>& scores) override {
    const int32_t d = v.head_dim(), page = v.args.cache.page_size, pages = v.tokens() / page;
    std::vector<float> bound(static_cast<size_t>(pages)), best(static_cast<size_t>(pages));
    for (int32_t g = 0; g < v.group(); ++g) {
      for (int32_t p = 0; p < pages; ++p) {
        const std::vector<float>& box = boxes_.get(v.layer, v.head, v.table[p], 2 * d, [&](float* to) { make(v, p, to); });
        float sum = 0;
        for (int32_t i = 0; i < d; ++i) sum += std::max(v.query(g)[i] * box[static_cast<size_t>(i)], v.query(g)[i] * box[static_cast<size_t>(d + i)]);
        bound[static_cast<size_t>(p)] = v.args.scale * sum;
      }
      if (pages > 0) raise_to_softmax(bound, best);
    }
    for (int32_t t = 0; t < pages * page; ++t) scores[static_cast<size_t>(t)] = best[static_cast<size_t>(t / page)];
    return static_cast<double>(pages) * 2 * d * 2;
  }

  static void make(const View& v, int32_t page, float* box) {
    const int32_t d = v.head_dim(), size = v.args.cache.page_size;
    std::vector<float> k(static_cast<size_t>(d));
    for (int32_t t = 0; t < size; ++t) {
      v.key(page * size + t, k.data());
      for (int32_t i = 0; i < d; ++i) {
        box[i] = t == 0 ? k[static_cast<size_t>(i)] : std::min(box[i], k[static_cast<size_t>(i)]);
        box[d + i] = t == 0 ? k[static_cast<size_t>(i)] : std::max(box[d + i], k[static_cast<size_t>(i)]);
      }
    }
  }

  PageSummaries boxes_;
};

}  // namespace

std::unique_ptr<Selector> make_quest(const PolicyContext& context) { return std::make_unique<QuestSelector>(context); }

}  // namespace tinyserve
