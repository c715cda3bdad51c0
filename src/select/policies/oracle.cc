// The best tokens by their true attention: what no policy can know without reading all keys. Its bytes are those of the tokens it keeps.

#include "select/choosing_selector.h"
#include "select/policies/makers.h"

namespace tinyserve {
namespace {

class OracleSelector final : public ChoosingSelector {
 public:
  explicit OracleSelector(const PolicyContext& c) : ChoosingSelector(c.config, false) {}

 private:
  double score(const View& v, std::vector<float>& scores) override {
    std::vector<float> logits;
    for (int32_t g = 0; g < v.group(); ++g) {
      v.logits(v.query(g), logits);
      raise_to_softmax(logits, scores);
    }
    return 0;
  }
};

}  // namespace

std::unique_ptr<Selector> make_oracle(const PolicyContext& context) { return std::make_unique<OracleSelector>(context); }

}  // namespace tinyserve
