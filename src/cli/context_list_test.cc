#include "cli/context_list.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace tinyserve::cli {
namespace {

using testing::ElementsAre;

TEST(ContextList, ReadsNumbersListsAndRanges) {
  EXPECT_THAT(parse_contexts("512", 16, 1 << 20), ElementsAre(512));
  EXPECT_THAT(parse_contexts("1k,8K", 16, 1 << 20), ElementsAre(1024, 8192));
  EXPECT_THAT(parse_contexts("1k..8k", 16, 1 << 20), ElementsAre(1024, 2048, 4096, 8192));
  EXPECT_THAT(parse_contexts("100..500,16", 16, 1 << 20), ElementsAre(100, 200, 400, 16));
}

TEST(ContextList, RefusesTheRest) {
  for (const char* text : {"", "k", "1m", "1k,", "..1k", "1k..", "8k..1k", "15", "-1", "2k2", "1048577", "1025k", "99999999999999999999", "9007199254740993k"})
    EXPECT_THROW(parse_contexts(text, 16, 1 << 20), InputError) << text;
}

}  // namespace
}  // namespace tinyserve::cli
