#include "select/selection_maps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"

namespace tinyserve {
namespace {

constexpr KvShape kShape{.num_layers = 3, .kv_heads = 2, .head_dim = 16};
const std::vector<bool> kSelectable{true, false, true};

SelectionMaps some_maps() {
  KeyStatistics statistics(3, 4, 2, 16);
  std::vector<float> qkv(200 * 8 * 16);
  for (size_t i = 0; i < qkv.size(); ++i) qkv[i] = std::sin(static_cast<float>(i * i % 9973)) * (i % 16 < 4 ? 3.0f : 0.3f);
  for (int32_t l = 0; l < 3; ++l) statistics.add(l, qkv.data(), 8 * 16, 200);
  return SelectionMaps::fit(statistics, kSelectable);
}

struct TempFile {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("tinyserve-maps-" + std::to_string(::getpid()) + ".json");
  ~TempFile() { std::filesystem::remove(path); }
};

TEST(SelectionMaps, ComeBackFromAFile) {
  const SelectionMaps maps = some_maps();
  EXPECT_EQ(maps.coded_layers(), kSelectable);
  const TempFile file;
  maps.save(file.path);
  const SelectionMaps back = SelectionMaps::load(file.path, kShape, kSelectable);
  EXPECT_EQ(back.digest(), maps.digest());
  ASSERT_EQ(back.layers[2].size(), 2u);
  EXPECT_EQ(back.layers[2][1].to_axes, maps.layers[2][1].to_axes);
  EXPECT_EQ(SelectionMaps::load(file.path, kShape, {true, false, false}).coded_layers(), (std::vector<bool>{true, false, false}));
}

TEST(SelectionMaps, SayWhatLayersRead) {
  SelectionMaps maps = some_maps();
  maps.reads[2] = {.exact = 1.5f, .coded = 0.25f, .fine = 2};
  maps.layers[0].clear();  // dense
  const TempFile file;
  maps.save(file.path);
  const SelectionMaps back = SelectionMaps::load(file.path, kShape, kSelectable);
  EXPECT_EQ(back.reads, maps.reads);
  EXPECT_EQ(back.coded_layers(), (std::vector<bool>{false, false, true}));
  EXPECT_EQ(back.digest(), maps.digest());
  EXPECT_NE(back.digest(), some_maps().digest());
  EXPECT_EQ(back.reads[2].exact_of(101), 152);
  EXPECT_EQ(back.reads[2].coded_of(101), 25);
  EXPECT_EQ(back.reads[2].fine_divisor_of(3), 2);
  EXPECT_EQ(back.reads[2].fine_divisor_of(1), 1);
}

TEST(SelectionMaps, ReadsFilesOfVersion1) {
  const TempFile file;
  const SelectionMaps maps = some_maps();
  maps.save(file.path);
  Json json = parse_json(read_text_file(file.path), "maps");
  json["version"] = 1;
  json.erase("reads");
  std::ofstream(file.path) << json.dump();
  EXPECT_EQ(SelectionMaps::load(file.path, kShape, kSelectable).digest(), maps.digest());
}

/// What load() says of a file that is not as it should be.
std::string complaint(const std::filesystem::path& file) {
  try {
    SelectionMaps::load(file, kShape, kSelectable);
  } catch (const InputError& e) {
    return e.what();
  }
  return "nothing";
}

TEST(SelectionMaps, NameTheFieldAtFault) {
  const TempFile file;
  some_maps().save(file.path);
  const Json good = parse_json(read_text_file(file.path), "maps");
  const auto said = [&](const auto& spoil) {
    Json bad = good;
    spoil(bad);
    std::ofstream(file.path) << bad.dump();
    return complaint(file.path);
  };
  using testing::HasSubstr;
  EXPECT_THAT(said([](Json& j) { j["reads"][1]["coded"] = 0; }), HasSubstr("layer 1, reads: coded is 0"));
  EXPECT_THAT(said([](Json& j) { j["reads"][2]["fine"] = 1e9; }), HasSubstr("layer 2, reads: fine"));
  EXPECT_THAT(said([](Json& j) { j["reads"][0].erase("exact"); }), HasSubstr("exact"));
  EXPECT_THAT(said([](Json& j) { j["reads"].erase(2); }), HasSubstr("reads has 2 layers"));
  EXPECT_THAT(said([](Json& j) { j.erase("reads"); }), HasSubstr("reads"));
  EXPECT_THAT(said([](Json& j) { j["layers"][0].erase(1); }), HasSubstr("layer 0 has 1 heads"));
}

TEST(SelectionMaps, RefuseFilesThatDoNotFit) {
  const TempFile file;
  some_maps().save(file.path);
  EXPECT_THROW(SelectionMaps::load(file.path, {.num_layers = 3, .kv_heads = 1, .head_dim = 16}, kSelectable), InputError);
  EXPECT_THROW(SelectionMaps::load(file.path, {.num_layers = 2, .kv_heads = 2, .head_dim = 16}, {true, true}), InputError);
  const std::string good = read_text_file(file.path);
  const auto refused = [&](const std::string& from, const std::string& to) {
    std::string bad = good;
    bad.replace(bad.find(from), from.size(), to);
    std::ofstream(file.path) << bad;
    EXPECT_THROW(SelectionMaps::load(file.path, kShape, kSelectable), InputError) << from;
  };
  refused("\"version\":2", "\"version\":3");
  refused("\"groups\":[", "\"groups\":[9,");
  refused("\"mean\":\"", "\"mean\":\"AAAA");
  refused("\"mean\":\"", "\"mean\":7,\"x\":\"");
  refused("\"to_axes\"", "\"to_axis\"");
  refused("{", "[");
}

}  // namespace
}  // namespace tinyserve
