#include "cli/answer.h"

#include <gtest/gtest.h>

namespace tinyserve::cli {
namespace {

TEST(TerminalSafe, ShowsControlCharacters) {
  EXPECT_EQ(terminal_safe("plain\n\ttext \xc3\xa9 \xf0\x9f\x98\x80"), "plain\n\ttext \xc3\xa9 \xf0\x9f\x98\x80");
  EXPECT_EQ(terminal_safe("\x1b]0;title\x07"), "\\x1b]0;title\\x07");
  EXPECT_EQ(terminal_safe("a\rb\x7f"), "a\\x0db\\x7f");
  EXPECT_EQ(terminal_safe("\xc2\x9b" "31m"), "\\x9b31m");       // the one-character form of ESC [
  EXPECT_EQ(terminal_safe("\xc2\xa0"), "\xc2\xa0");             // no-break space is none
}

TEST(Describe, NamesWhatHappened) {
  Answer a;
  a.prompt_tokens = 31, a.cached_prompt_tokens = 16, a.tokens = 11, a.first_token_s = 0.012, a.total_s = 0.112;
  a.finish = FinishReason::kStop;
  EXPECT_EQ(describe(a), "31 prompt tokens (16 cached), first token after 12 ms; 11 tokens at 100.0 tokens/s, complete");
  a.interrupted = true;
  EXPECT_NE(describe(a).find("interrupted"), std::string::npos);
}

}  // namespace
}  // namespace tinyserve::cli
