#include "cli/progress.h"

#include <gtest/gtest.h>

namespace tinyserve::cli {
namespace {

struct Screen {
  double now = 100;
  std::string text;
  Progress::Clock clock() {
    return [this] { return now; };
  }
  Progress::Write write() {
    return [this](const std::string& t) { text += t; };
  }
};

TEST(Progress, TerminalRewritesOneLineWithTimeToGo) {
  Screen screen;
  {
    Progress p("requests", 10, true, screen.clock(), screen.write());
    p.add();
    EXPECT_EQ(screen.text, "");  // too soon
    screen.now += 2;
    p.add();
    EXPECT_EQ(screen.text, "\r\033[Krequests: 2 of 10, 8 s to go");
    screen.now += 0.01;
    p.add();
    EXPECT_EQ(screen.text.find("3 of 10"), std::string::npos);
    screen.text.clear();
  }
  EXPECT_EQ(screen.text, "\r\033[K");  // cleared at the end
}

TEST(Progress, LogGetsPlainLinesNowAndThen) {
  Screen screen;
  {
    Progress p("requests", 100, false, screen.clock(), screen.write());
    for (int i = 0; i < 25; ++i) screen.now += 1, p.add();
  }
  EXPECT_EQ(screen.text, "requests: 10 of 100, 1:30 to go\nrequests: 20 of 100, 1:20 to go\n");
}

}  // namespace
}  // namespace tinyserve::cli
