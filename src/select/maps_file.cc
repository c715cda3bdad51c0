// SelectionMaps on disk: JSON, numbers in base64 of little-endian F32.

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "select/selection_maps.h"

namespace tinyserve {
namespace {

// Version 1 had neither `reads` nor layers left dense.
constexpr int kVersion = 2;
constexpr float kMostTimes = 64;  // of what a layer reads

struct Part {
  const char* name;
  std::vector<float> HeadMap::* values;
  bool matrix;
};
constexpr Part kParts[] = {{"mean", &HeadMap::mean, false},
                           {"to_axes", &HeadMap::to_axes, true},
                           {"from_axes", &HeadMap::from_axes, true},
                           {"coarse_error", &HeadMap::coarse_error, false},
                           {"fine_error", &HeadMap::fine_error, false},
                           {"variance", &HeadMap::variance, false}};

std::string packed(const std::vector<float>& v) {
  return encode_base64({reinterpret_cast<const char*>(v.data()), v.size() * sizeof(float)});
}

std::vector<float> unpacked(const Json& json, size_t count, const std::string& where) {
  const std::string bytes = decode_base64(json.get<std::string>(), where);
  if (bytes.size() != count * sizeof(float)) throw InputError(fmt::format("{} has {} bytes, not {}", where, bytes.size(), count * sizeof(float)));
  std::vector<float> v(count);
  std::memcpy(v.data(), bytes.data(), bytes.size());
  for (const float x : v)
    if (!std::isfinite(x)) throw InputError(where + " has numbers that are not finite");
  return v;
}

HeadMap head_from(const Json& json, int32_t d, const std::string& where) {
  HeadMap head;
  uint8_t* const bits[] = {&head.bits.coarse4, &head.bits.coarse2, &head.bits.fine4, &head.bits.fine2};
  const Json& groups = json.at("groups");
  if (groups.size() != 4) throw InputError(where + ": groups are four numbers");
  for (size_t i = 0; i < 4; ++i) {
    const int n = groups[i].get<int>();
    if (n < 0 || n > d / 4) throw InputError(fmt::format("{}: {} groups of four axes in a head of {}", where, n, d));
    *bits[i] = static_cast<uint8_t>(n);
  }
  const ops::HeadBits b = head.bits;
  if (2 * b.coarse4 + b.coarse2 > ops::coarse_units(d) || 2 * b.fine4 + b.fine2 > d / 4 || b.fine4 + b.fine2 > d / 4 || b.fine4 < b.coarse4 ||
      b.fine4 + b.fine2 < b.coarse4 + b.coarse2)
    throw InputError(where + ": the bits do not fit the layout of codes");
  for (const Part& p : kParts)
    head.*p.values = unpacked(json.at(p.name), p.matrix ? size_t(d) * size_t(d) : size_t(d), fmt::format("{}: {}", where, p.name));
  return head;
}

LayerReads reads_from(const Json& json, size_t layer, const std::string& file) {
  LayerReads reads;
  const std::pair<const char*, float*> factors[] = {
      {"exact", &reads.exact}, {"coded", &reads.coded}, {"fine", &reads.fine}};
  for (const auto& [name, factor] : factors) {
    *factor = json.at(layer).at(name).get<float>();
    if (!(*factor > 0 && *factor <= kMostTimes))
      throw InputError(fmt::format("{}: layer {}, reads: {} is {}, not above 0 and at most {}", file, layer, name,
                                   *factor, kMostTimes));
  }
  return reads;
}

SelectionMaps maps_from(const Json& json, const KvShape& shape, const std::vector<bool>& selectable, const std::string& file) {
  const auto number = [&](const char* name) { return json.at(name).get<int64_t>(); };
  if (json.at("format") != "tinyserve selection" || number("version") < 1 || number("version") > kVersion)
    throw InputError(fmt::format("{} is not a file of selection maps that this version reads", file));
  if (number("kv_heads") != shape.kv_heads || number("head_dim") != shape.head_dim || json.at("layers").size() != static_cast<size_t>(shape.num_layers))
    throw InputError(fmt::format("{} was made for another model: {} layers of {} KV heads of {}, this one has {} of {} of {}", file,
                                 json.at("layers").size(), number("kv_heads"), number("head_dim"), shape.num_layers, shape.kv_heads, shape.head_dim));
  if (number("version") > 1 && json.at("reads").size() != json.at("layers").size())
    throw InputError(
        fmt::format("{}: reads has {} layers, not {}", file, json.at("reads").size(), json.at("layers").size()));
  SelectionMaps maps;
  for (size_t l = 0; l < json.at("layers").size(); ++l) {
    const Json& heads = json.at("layers")[l];
    std::vector<HeadMap>& layer = maps.layers.emplace_back();
    maps.reads.push_back(number("version") == 1 ? LayerReads{} : reads_from(json.at("reads"), l, file));
    if (!selectable[l] || (number("version") > 1 && heads.empty())) continue;
    if (heads.size() != static_cast<size_t>(shape.kv_heads)) throw InputError(fmt::format("{}: layer {} has {} heads", file, l, heads.size()));
    for (size_t h = 0; h < heads.size(); ++h) layer.push_back(head_from(heads[h], shape.head_dim, fmt::format("{}: layer {}, head {}", file, l, h)));
  }
  return maps;
}

}  // namespace

SelectionMaps SelectionMaps::load(const std::filesystem::path& file, const KvShape& shape, const std::vector<bool>& selectable) {
  const Json json = parse_json(read_text_file(file), file.string());
  try {
    return maps_from(json, shape, selectable, file.string());
  } catch (const Json::exception& e) {
    throw InputError(fmt::format("{}: a field is missing or of another type ({})", file.string(), e.what()));
  }
}

void SelectionMaps::save(const std::filesystem::path& file) const {
  Json all = {{"format", "tinyserve selection"}, {"version", kVersion},   {"kv_heads", 0}, {"head_dim", 0},
              {"layers", Json::array()},         {"reads", Json::array()}};
  for (const LayerReads& r : reads) all["reads"].push_back({{"exact", r.exact}, {"coded", r.coded}, {"fine", r.fine}});
  for (const std::vector<HeadMap>& heads : layers) {
    Json layer = Json::array();
    for (const HeadMap& h : heads) {
      Json head = {{"groups", {h.bits.coarse4, h.bits.coarse2, h.bits.fine4, h.bits.fine2}}};
      for (const Part& p : kParts) head[p.name] = packed(h.*p.values);
      layer.push_back(std::move(head));
      all["kv_heads"] = heads.size(), all["head_dim"] = h.mean.size();
    }
    all["layers"].push_back(std::move(layer));
  }
  // Under another name first: whoever reads the file finds all of it or the old one.
  const std::filesystem::path partial = fmt::format("{}.{}.partial", file.string(), ::getpid());
  std::error_code error;
  {
    std::ofstream out(partial, std::ios::binary);
    out << all.dump() << '\n';
    if (!out.flush()) throw InputError(fmt::format("{} cannot be written", partial.string()));
  }
  std::filesystem::rename(partial, file, error);
  if (error) throw InputError(fmt::format("{} cannot be written: {}", file.string(), error.message()));
}

}  // namespace tinyserve
