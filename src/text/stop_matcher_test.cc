#include "text/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "base/error.h"

namespace tinyserve {
namespace {

std::shared_ptr<const StopSet> stops(std::vector<std::string> s) {
  return std::make_shared<const StopSet>(std::move(s));
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher m(stops({"</s>", "\nUser:"}));
  EXPECT_EQ(m.push("Hi <"), "Hi ");
  EXPECT_EQ(m.num_held_bytes(), 1u);
  EXPECT_EQ(m.push("/"), "");
  EXPECT_EQ(m.push("b>"), "</b>");
  EXPECT_EQ(m.push("x\nUs"), "x");
  EXPECT_EQ(m.push("er"), "");
  EXPECT_FALSE(m.stopped());
  EXPECT_EQ(m.push(": more"), "");
  ASSERT_TRUE(m.stopped());
  EXPECT_EQ(*m.matched(), "\nUser:");
  EXPECT_EQ(m.push("never shown"), "");
  EXPECT_EQ(m.flush(), "");
}

TEST(StopMatcher, IncludesTheStopWhenAsked) {
  StopMatcher m(stops({"END"}), true);
  EXPECT_EQ(m.push("a E"), "a ");
  EXPECT_EQ(m.push("ND b"), "END");
  EXPECT_TRUE(m.stopped());
}

TEST(StopMatcher, FlushShowsWhatWaited) {
  StopMatcher m(stops({"END"}));
  EXPECT_EQ(m.push("the EN"), "the ");
  EXPECT_EQ(m.flush(), "EN");
  EXPECT_FALSE(m.stopped());
}

TEST(StopMatcher, FirstEndWinsThenTheLongest) {
  StopMatcher first(stops({"abcd", "bc"}));
  EXPECT_EQ(first.push("xabcd"), "xa");
  EXPECT_EQ(*first.matched(), "bc");
  StopMatcher longest(stops({"c", "abc"}));
  EXPECT_EQ(longest.push("xabc"), "x");
  EXPECT_EQ(*longest.matched(), "abc");
  StopMatcher overlap(stops({"aab"}));
  EXPECT_EQ(overlap.push("aaa"), "a");
  EXPECT_EQ(overlap.push("ab"), "a");
  EXPECT_TRUE(overlap.stopped());
}

TEST(StopMatcher, NoStopsPassEverything) {
  StopMatcher none, empty(stops({}));
  EXPECT_EQ(none.push("abc"), "abc");
  EXPECT_EQ(empty.push("abc"), "abc");
  EXPECT_EQ(none.flush(), "");
}

TEST(StopMatcher, RefusesEmptyAndHugeStops) {
  EXPECT_THROW(StopSet({"a", ""}), InputError);
  EXPECT_THROW(StopSet({std::string(StopSet::kMaxBytes + 1, 'a')}), InputError);
}

// The definition, written down: after each byte, does a stop end here?
struct Naive {
  std::string shown;
  bool stopped = false;
};
Naive naive(const std::vector<std::string>& all, const std::string& text, bool include) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& s : all)
      if (s.size() <= end && text.compare(end - s.size(), s.size(), s) == 0) longest = std::max(longest, s.size());
    if (longest) return {text.substr(0, include ? end : end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, AgreesWithTheDefinitionForAnySplit) {
  std::mt19937 random(11);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  int num_stopped = 0;
  for (int round = 0; round < 30000; ++round) {
    const int letters = 2 + pick(3);
    const auto word = [&](int least, int most) {
      std::string s;
      for (int n = least + pick(most - least + 1); n > 0; --n) s += static_cast<char>('a' + pick(letters));
      return s;
    };
    std::vector<std::string> all;
    for (int n = pick(4); n >= 0; --n) all.push_back(word(1, 6));
    const std::string text = word(0, 30);
    const bool include = pick(2);
    StopMatcher m(stops(all), include);
    std::string shown;
    for (size_t i = 0; i < text.size() && !m.stopped();) {
      const size_t n = 1 + pick(4);
      m.push(std::string_view(text).substr(i, n), shown);
      i += n;
      if (!m.stopped()) {
        // Exactly the longest end of the text that begins a stop is held back.
        const std::string so_far = text.substr(0, std::min(i, text.size()));
        size_t held = 0;
        for (const std::string& s : all)
          for (size_t k = 1; k < s.size() && k <= so_far.size(); ++k)
            if (so_far.compare(so_far.size() - k, k, s, 0, k) == 0) held = std::max(held, k);
        ASSERT_EQ(m.num_held_bytes(), held);
        ASSERT_EQ(shown.size() + held, so_far.size());
      }
    }
    m.flush(shown);
    const Naive expected = naive(all, text, include);
    ASSERT_EQ(m.stopped(), expected.stopped);
    ASSERT_EQ(shown, expected.shown) << text;
    num_stopped += expected.stopped;
  }
  EXPECT_GT(num_stopped, 5000);
  EXPECT_LT(num_stopped, 29000);
}

// aaaa...b against aaaa...: a matcher that starts over at each byte needs 10^11 steps here.
TEST(StopMatcher, AdversarialStopsAreLinear) {
  const std::string almost = std::string(200'000, 'a') + "b";
  StopMatcher m(stops({almost, std::string(100'000, 'a') + "c"}));
  const auto begin = std::chrono::steady_clock::now();
  std::string shown;
  for (int i = 0; i < 200; ++i) m.push(std::string(5'000, 'a'), shown);
  m.push("d", shown);
  EXPECT_EQ(shown.size(), 1'000'001u);
  EXPECT_FALSE(m.stopped());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), 10) << "quadratic?";
}

}  // namespace
}  // namespace tinyserve
