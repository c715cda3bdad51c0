#include "cli/flags.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

namespace tinyserve::cli {
namespace {

struct Values {
  int32_t count = 3;
  std::optional<int32_t> limit;
  float heat = 0.5f;
  int64_t size = 1024;
  std::vector<int32_t> list = {1, 2};
  std::vector<std::string> words;
  std::string kind, name;
  bool on = true, verbose = false;
};

struct Parsed {
  Values v;
  int error = 0;
  std::string message, help;
};

Parsed parse(std::vector<std::string> arguments) {
  Parsed p;
  CLI::App root("test", "test");
  Action action;
  CLI::App& app = add_command(root, "run", "Runs", action, [] { return 7; });
  FlagGroup(app, "Group")
      .number("--count", p.v.count, 1, 10, "How many")
      .number("--limit", p.v.limit, 0, 5, "At most", "no limit")
      .decimal("--heat", p.v.heat, 0, 2, "How hot")
      .bytes("--size", p.v.size, 1, 1 << 20, "How large")
      .numbers("--list", p.v.list, 0, 9, "Which")
      .texts("--word", p.v.words, "WORD", "What")
      .choice("--kind", {"plain", "fancy"}, "How", [&](const std::string& k) { p.v.kind = k; })
      .text("--name", p.v.name, "NAME", "Who", "nobody")
      .toggle("--power", p.v.on, "Whether")
      .flag("--verbose", p.v.verbose, "Say more");
  p.help = app.help();
  std::reverse(arguments.begin(), arguments.end());
  arguments.push_back("run");
  try {
    root.parse(arguments);
    EXPECT_EQ(action(), 7);
  } catch (const CLI::ParseError& e) {
    p.error = 1;
    p.message = e.what();
  }
  return p;
}

TEST(Flags, DefaultsStandWhenNothingIsGiven) {
  const Parsed p = parse({});
  EXPECT_EQ(p.error, 0);
  EXPECT_EQ(p.v.count, 3);
  EXPECT_FALSE(p.v.limit);
  EXPECT_TRUE(p.v.on);
  EXPECT_EQ(p.v.list, (std::vector<int32_t>{1, 2}));
}

TEST(Flags, ValuesArrive) {
  const Parsed p = parse({"--count", "10", "--limit=0", "--heat", "1.25", "--size", "4KiB", "--list", "7,8,9", "--word", "a",
                          "--word", "b", "--kind", "fancy", "--name", "x", "--no-power", "--verbose"});
  EXPECT_EQ(p.error, 0) << p.message;
  EXPECT_EQ(p.v.count, 10);
  EXPECT_EQ(p.v.limit, 0);
  EXPECT_EQ(p.v.heat, 1.25f);
  EXPECT_EQ(p.v.size, 4096);
  EXPECT_EQ(p.v.list, (std::vector<int32_t>{7, 8, 9}));
  EXPECT_EQ(p.v.words, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(p.v.kind, "fancy");
  EXPECT_EQ(p.v.name, "x");
  EXPECT_FALSE(p.v.on);
  EXPECT_TRUE(p.v.verbose);
}

TEST(Flags, BadValuesNameFlagValueAndRange) {
  const Parsed p = parse({"--count", "11"});
  EXPECT_EQ(p.error, 1);
  EXPECT_EQ(p.message, "--count: '11' must be a whole number from 1 to 10");
  for (const auto& bad : std::vector<std::vector<std::string>>{
           {"--count", "0"}, {"--count", "2.5"}, {"--count", "3x"}, {"--count", ""}, {"--count", "99999999999999999999"},
           {"--limit", "-1"}, {"--heat", "nan"}, {"--heat", "3"}, {"--size", "2MiB"}, {"--size", "lots"}, {"--list", "1,,2"},
           {"--list", ""}, {"--list", "1,10"}, {"--kind", "other"}, {"--unknown"}, {"stray"}})
    EXPECT_EQ(parse(bad).error, 1) << bad.back();
}

TEST(Flags, HelpShowsEveryDefault) {
  const std::string help = parse({}).help;
  for (const char* text : {"How many [default: 3]", "At most [default: no limit]", "How hot [default: 0.5]", "How large [default: 1 KiB]",
                           "Which [default: 1,2]", "How [default: plain]", "Who [default: nobody]", "Whether [default: on]",
                           "Say more [default: off]", "plain|fancy", "--no-power"})
    EXPECT_NE(help.find(text), std::string::npos) << text << "\n" << help;
}

}  // namespace
}  // namespace tinyserve::cli
