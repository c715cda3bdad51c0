#include "cli/default_sampling.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"

namespace tinyserve::cli {
namespace {

struct Folder {
  explicit Folder(const std::string& text)
      : path(testing::TempDir() + "default_sampling_" + std::to_string(::getpid()) + "_" + std::to_string(counter++)) {
    std::filesystem::create_directories(path);
    std::ofstream(path / "generation_config.json") << text;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
  inline static int counter = 0;
};

TEST(DefaultSampling, ReadsWhatIsThere) {
  const Folder f(R"({"eos_token_id": [0, 2], "do_sample": true, "temperature": 0.7, "top_p": 0.95, "top_k": 20})");
  const DefaultSampling s = read_default_sampling(f.path);
  EXPECT_EQ(s.temperature, 0.7f);
  EXPECT_EQ(s.top_p, 0.95f);
  EXPECT_EQ(s.top_k, 20);
  EXPECT_FALSE(s.min_p);
}

TEST(DefaultSampling, NoFileAndGreedy) {
  EXPECT_FALSE(read_default_sampling(testing::TempDir()).temperature);
  EXPECT_EQ(read_default_sampling(Folder(R"({"do_sample": false, "temperature": 0.7})").path).temperature, 0.0f);
}

TEST(DefaultSampling, RefusesNonsense) {
  for (const char* text : {R"({"temperature": "hot"})", R"({"top_p": 1.5})", R"({"temperature": -1})", "[]", "{"})
    EXPECT_THROW(read_default_sampling(Folder(text).path), InputError) << text;
}

}  // namespace
}  // namespace tinyserve::cli
