#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tinyserve {

/// Numbers that describe a page, computed when first asked for. For policies that are only evaluated.
class PageSummaries {
 public:
  template <class Make>
  const std::vector<float>& get(int32_t layer, int32_t head, int32_t page, int32_t size, Make&& make) {
    std::vector<float>& values = at(layer, head, page);
    if (values.empty()) {
      values.resize(static_cast<size_t>(size));
      make(values.data());
    }
    return values;
  }
  /// Pages that were written anew.
  void forget(int32_t layer, std::span<const int32_t> pages) {
    if (static_cast<size_t>(layer) >= layers_.size()) return;
    for (auto& head : layers_[static_cast<size_t>(layer)])
      for (const int32_t page : pages)
        if (static_cast<size_t>(page) < head.size()) head[static_cast<size_t>(page)].clear();
  }

 private:
  std::vector<float>& at(int32_t layer, int32_t head, int32_t page) {
    const auto grown = [](auto& list, int32_t i) -> auto& {
      if (list.size() <= static_cast<size_t>(i)) list.resize(static_cast<size_t>(i) + 1);
      return list[static_cast<size_t>(i)];
    };
    return grown(grown(grown(layers_, layer), head), page);
  }

  std::vector<std::vector<std::vector<std::vector<float>>>> layers_;  // [layer][head][page]
};

}  // namespace tinyserve
