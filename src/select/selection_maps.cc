#include "select/selection_maps.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#define XXH_NO_INLINE_HINTS 1  // forced inlining fails at -Og, with which sanitizers build
#include <xxhash.h>

#include <algorithm>

#include "base/check.h"

namespace tinyserve {

SelectionMaps SelectionMaps::fit(const KeyStatistics& statistics, const std::vector<bool>& selectable) {
  SelectionMaps maps;
  maps.layers.resize(static_cast<size_t>(statistics.num_layers()));
  maps.reads.resize(maps.layers.size());
  for (int32_t l = 0; l < statistics.num_layers(); ++l)
    for (int32_t h = 0; selectable[static_cast<size_t>(l)] && h < statistics.kv_heads(); ++h)
      maps.layers[static_cast<size_t>(l)].push_back(fit_head_map(statistics.head(l, h), statistics.head_dim()));
  return maps;
}

std::vector<bool> SelectionMaps::coded_layers() const {
  std::vector<bool> coded;
  for (const auto& heads : layers) coded.push_back(!heads.empty());
  return coded;
}

std::string SelectionMaps::digest() const {
  std::string all;
  const auto add = [&](const auto& v) {
    all.append(reinterpret_cast<const char*>(std::data(v)), std::size(v) * sizeof *std::data(v));
  };
  for (size_t l = 0; l < layers.size(); ++l)
    for (const HeadMap& h : layers[l]) {
      const uint64_t head[] = {l, h.bits.coarse4, h.bits.coarse2, h.bits.fine4, h.bits.fine2};
      add(head);
      for (const auto* v : {&h.mean, &h.to_axes, &h.from_axes, &h.coarse_error, &h.fine_error}) add(*v);
    }
  for (const LayerReads& r : reads) {
    const float factors[] = {r.exact, r.coded, r.fine};
    add(factors);
  }
  const XXH128_hash_t hash = XXH3_128bits(all.data(), all.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

template <class T>
const T* PlacedMaps::place(ops::Ops& ops, const std::vector<T>& values) {
  std::unique_ptr<ops::Memory> memory = ops.allocate(values.size() * sizeof(T));
  ops.upload(memory->data, values.data(), values.size() * sizeof(T));
  return memory_.emplace_back(std::move(memory))->as<T>();
}

PlacedMaps::PlacedMaps(ops::Ops& ops, const SelectionMaps& maps) : reads_(maps.reads) {
  TS_CHECK(reads_.size() == maps.layers.size(), "what each layer reads");
  for (const std::vector<HeadMap>& heads : maps.layers) {
    ops::SelectionMap& map = layers_.emplace_back();
    if (heads.empty()) continue;
    std::vector<ops::HeadBits> bits;
    for (const HeadMap& h : heads) bits.push_back(h.bits);
    const auto joined = [&](std::vector<float> HeadMap::* part) {
      std::vector<float> all;
      for (const HeadMap& h : heads) all.insert(all.end(), (h.*part).begin(), (h.*part).end());
      return place(ops, all);
    };
    map = {.bits = place(ops, bits),
           .mean = joined(&HeadMap::mean),
           .to_axes = joined(&HeadMap::to_axes),
           .from_axes = joined(&HeadMap::from_axes),
           .coarse_error = joined(&HeadMap::coarse_error),
           .fine_error = joined(&HeadMap::fine_error)};
  }
}

const ops::SelectionMap* PlacedMaps::layer(int32_t layer) const {
  const ops::SelectionMap& map = layers_[static_cast<size_t>(layer)];
  return map.bits ? &map : nullptr;
}

}  // namespace tinyserve
