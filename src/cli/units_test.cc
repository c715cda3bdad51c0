#include "cli/units.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace tinyserve::cli {
namespace {

TEST(Units, ReadsSizes) {
  EXPECT_EQ(parse_bytes("0"), 0);
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_bytes("17B"), 17);
  EXPECT_EQ(parse_bytes("2GiB"), int64_t{2} << 30);
  EXPECT_EQ(parse_bytes("1.5 GB"), 1'500'000'000);
  EXPECT_EQ(parse_bytes("512MiB"), 512 << 20);
  EXPECT_EQ(parse_bytes("3k"), 3 << 10);
}

TEST(Units, RefusesWhatIsNoSize) {
  for (const char* text : {"", "GiB", "-1", "1e9", "2 gigabytes", "2GiBB", "nan", "inf", "1..5", "0x10", "9999999TiB", "1 2"})
    EXPECT_THROW(parse_bytes(text), InputError) << text;
}

TEST(Units, WritesSizesThatReadBack) {
  for (int64_t v : {int64_t{0}, int64_t{17}, int64_t{1024}, int64_t{1536}, int64_t{5} << 30, int64_t{1} << 50}) {
    const std::string text = format_bytes(v);
    EXPECT_EQ(parse_bytes(text), v) << text;
  }
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
}

TEST(Units, WritesDurations) {
  EXPECT_EQ(format_duration(0.2), "1 s");
  EXPECT_EQ(format_duration(59), "59 s");
  EXPECT_EQ(format_duration(61), "1:01");
  EXPECT_EQ(format_duration(3723), "1:02:03");
}

}  // namespace
}  // namespace tinyserve::cli
