#include "cli/weights_digest.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace tinyserve::cli {
namespace {

namespace fs = std::filesystem;

class WeightsDigestTest : public ::testing::Test {
 protected:
  WeightsDigestTest() : folder(fs::temp_directory_path() / ("tinyserve-digest-" + std::to_string(::getpid()))) {
    fs::create_directories(folder / "a");
    fs::create_directories(folder / "b");
  }
  ~WeightsDigestTest() override { fs::remove_all(folder); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder / name, std::ios::binary) << text; }
  fs::path folder;
};

TEST_F(WeightsDigestTest, IsAboutContentsAlone) {
  for (const char* f : {"a/", "b/"}) {
    write(f + std::string("config.json"), "{}");
    write(f + std::string("model.safetensors"), std::string(100000, 'w'));
  }
  write("b/README.md", "hello");
  const std::string digest = weights_digest(folder / "a");
  EXPECT_EQ(digest.size(), 32u);
  EXPECT_EQ(digest, weights_digest(folder / "b")) << "neither the place nor other files matter";
  std::string weights(100000, 'w');
  weights[99999] = 'v';
  write("b/model.safetensors", weights);
  EXPECT_NE(digest, weights_digest(folder / "b"));
  write("b/model.safetensors", std::string(100000, 'w'));
  write("b/config.json", "{ }");
  EXPECT_NE(digest, weights_digest(folder / "b"));
}

TEST_F(WeightsDigestTest, AllShardsCount) {
  write("m-00001-of-00002.gguf", "one");
  write("m-00002-of-00002.gguf", "two");
  const std::string digest = weights_digest(folder / "m-00001-of-00002.gguf");
  write("m-00002-of-00002.gguf", "too");
  EXPECT_NE(digest, weights_digest(folder / "m-00001-of-00002.gguf"));
}

}  // namespace
}  // namespace tinyserve::cli
