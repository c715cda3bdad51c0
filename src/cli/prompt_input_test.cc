#include "cli/prompt_input.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace tinyserve::cli {
namespace {

TEST(PromptInput, ArgumentAndFile) {
  EXPECT_EQ(read_prompt("hello", "", true), "hello");
  EXPECT_EQ(read_prompt(std::nullopt, "", true), std::nullopt);  // a terminal: chat
  const std::string file = testing::TempDir() + "prompt_input_" + std::to_string(::getpid()) + ".txt";
  std::ofstream(file) << "two\nlines\n";
  EXPECT_EQ(read_prompt(std::nullopt, file, false), "two\nlines");
  EXPECT_THROW(read_prompt("hello", file, true), InputError);
  std::ofstream(file).close();
  EXPECT_THROW(read_prompt(std::nullopt, file, true), InputError);  // empty
  EXPECT_THROW(read_prompt("", "", true), InputError);
  EXPECT_THROW(read_prompt(std::nullopt, file + ".not-there", true), InputError);
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace tinyserve::cli
