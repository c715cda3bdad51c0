#include "text/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "base/error.h"

namespace tinyserve {
namespace {

using testing::HasSubstr;

size_t count_matches(std::string_view pattern, std::string_view text) {
  Regex regex(pattern, "test");
  Regex::Scratch scratch;
  scratch.start(text.size());
  size_t n = 0;
  regex.for_each_match(text, scratch, [&](size_t, size_t) { ++n; });
  return n;
}

// Agreement with Oniguruma is tested in tokenizer_parts_test.cc, against the package.

TEST(Regex, SaysWhatItDoesNotSupport) {
  for (const auto& [pattern, why] : {std::pair("[a&&b]", "&&"), {"[a[bc]]", "inside a class"}, {"(?x: a )", "option"}, {"\\y", "\\y"},
                                     {"(*SKIP)", "verb"}, {"(", "not usable"}, {")", "did not open"}, {"[a", "close"}, {"\\", "backslash"},
                                     {"\\p{NoSuchThing}", "not usable"}, {"\\xff", "byte"}, {"\\p{", "close"}, {"a{1,9999999}", "large"},
                                     {"[\\W]", "negated"}, {"\xff", "UTF-8"}, {"(?<=a*)b", "not usable"}, {"*a", "not usable"}}) {
    try {
      Regex(pattern, "file.json: field");
      FAIL() << pattern;
    } catch (const InputError& e) {
      EXPECT_THAT(e.what(), HasSubstr(why));
      EXPECT_THAT(e.what(), HasSubstr("file.json: field"));
    }
  }
}

TEST(Regex, EscapesLiterals) {
  const std::string all = "a.b*c[d]{e}(f)\\ \n#-^$|?+é日\x01";
  EXPECT_EQ(count_matches(escape_regex(all), all + all), 2u);
  EXPECT_EQ(count_matches(escape_regex("."), "abc"), 0u);
}

// A pattern and a text made for each other may not hold the processor.
TEST(Regex, StopsWhenItTakesTooLong) {
  const std::string spaces = std::string(1'000'000, ' ') + "a";
  for (const char* pattern : {"\\s+\\s+$", "(?:\\s|\\s\\s)+$", "(?:\\s|x)+$", "(\\s+)+b?$"}) {
    const auto start = std::chrono::steady_clock::now();
    try {
      count_matches(pattern, spaces);
    } catch (const InputError& e) {
      EXPECT_THAT(e.what(), HasSubstr("pattern"));
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60)) << pattern;
  }
}

TEST(Regex, TakesLongRunsInItsStride) {
  const std::string run = std::string(2'000'000, ' ') + "a";
  EXPECT_EQ(count_matches(R"(\s*[\r\n]+|\s+(?!\S)|\s+)", run), 2u);
  EXPECT_EQ(count_matches(R"(\p{L}+)", std::string(2'000'000, 'x')), 1u);
  EXPECT_EQ(count_matches("b", std::string(2'000'000, 'x') + "b"), 1u);
}

}  // namespace
}  // namespace tinyserve
