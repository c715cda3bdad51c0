#include "cli/chat.h"

#include <gtest/gtest.h>

#include <deque>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace tinyserve::cli {
namespace {

class Script final : public LineReader {
 public:
  explicit Script(std::deque<Line> lines) : lines_(std::move(lines)) {}
  Line read() override {
    if (lines_.empty()) return {Line::kEnd, {}};
    Line line = lines_.front();
    lines_.pop_front();
    return line;
  }
  size_t left() const { return lines_.size(); }

 private:
  std::deque<Line> lines_;
};

Line say(const char* text) { return {Line::kText, text}; }

struct Fixture {
  std::vector<OrderedJson> asked;
  std::string screen;
  AnswerChat answer = [this](const OrderedJson& messages) {
    asked.push_back(messages);
    const std::string last = messages.back()["content"];
    if (last == "too long") throw InputError("does not fit");
    Answer a;
    if (last != "nothing") a.text = "re: " + last;
    return a;
  };
  WriteText write = [this](std::string_view text) { screen += text; };
  int run(Script& script, const std::string& system = "") { return run_chat(script, system, answer, write); }
};

TEST(Chat, KeepsTheConversation) {
  Fixture f;
  Script script({say("one"), say(""), say("two")});
  EXPECT_EQ(f.run(script, "be brief"), 0);
  ASSERT_EQ(f.asked.size(), 2u);
  EXPECT_EQ(f.asked[1].dump(),
            R"([{"role":"system","content":"be brief"},{"role":"user","content":"one"},)"
            R"({"role":"assistant","content":"re: one"},{"role":"user","content":"two"}])");
}

TEST(Chat, Commands) {
  Fixture f;
  Script script({say("/help"), say("one"), say("/reset"), say("two"), say("/system speak up"), say("three"),
                 say("/system"), say("four"), say("/nonsense"), say("//slash"), say("/exit"), say("never")});
  EXPECT_EQ(f.run(script), 0);
  EXPECT_NE(f.screen.find("/system TEXT"), std::string::npos);
  EXPECT_NE(f.screen.find("no command /nonsense"), std::string::npos);
  ASSERT_EQ(f.asked.size(), 5u);
  EXPECT_EQ(f.asked[1].size(), 1u);                                   // forgot "one"
  EXPECT_EQ(f.asked[2][0]["content"], "speak up");                    // system set, "two" forgotten
  EXPECT_EQ(f.asked[2].size(), 2u);
  EXPECT_EQ(f.asked[3].size(), 1u);                                   // no system message any more
  EXPECT_EQ(f.asked[4].back()["content"], "/slash");
  EXPECT_EQ(script.left(), 1u);
}

TEST(Chat, WhatCouldNotBeAnsweredIsNotKept) {
  Fixture f;
  Script script({say("too long"), say("nothing"), say("two")});
  f.run(script);
  EXPECT_NE(f.screen.find("error: does not fit"), std::string::npos);
  ASSERT_EQ(f.asked.size(), 3u);
  EXPECT_EQ(f.asked[2].size(), 1u);
}

TEST(Chat, InterruptsAtThePrompt) {
  Fixture f;
  Script script({{Line::kCancelled, ""}, say("one"), {Line::kLeave, ""}, say("never")});
  EXPECT_EQ(f.run(script), 0);
  EXPECT_EQ(f.asked.size(), 1u);
  EXPECT_EQ(script.left(), 1u);
}

}  // namespace
}  // namespace tinyserve::cli
