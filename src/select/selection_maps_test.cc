#include "select/selection_maps.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/error.h"
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
  refused("\"version\":1", "\"version\":2");
  refused("\"groups\":[", "\"groups\":[9,");
  refused("\"mean\":\"", "\"mean\":\"AAAA");
  refused("\"mean\":\"", "\"mean\":7,\"x\":\"");
  refused("\"to_axes\"", "\"to_axis\"");
  refused("{", "[");
}

}  // namespace
}  // namespace tinyserve
