#include "text/incremental_decoder.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace tinyserve {
namespace {

const std::string kBad = "\xEF\xBF\xBD";

// An oracle of another kind: tries all prefixes at each position instead of walking states.
bool well_formed(const std::string& s) {
  const auto b = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  uint32_t c = 0;
  switch (s.size()) {
    case 1:
      return b(0) < 0x80;
    case 2:
      c = (b(0) & 0x1F) << 6;
      break;
    case 3:
      c = (b(0) & 0x0F) << 12;
      break;
    case 4:
      c = (b(0) & 0x07) << 18;
      break;
    default:
      return false;
  }
  static constexpr int kLead[] = {0, 0, 0xC0, 0xE0, 0xF0}, kMask[] = {0, 0, 0xE0, 0xF0, 0xF8};
  if ((b(0) & kMask[s.size()]) != kLead[s.size()]) return false;
  for (size_t i = 1; i < s.size(); ++i) {
    if ((b(i) & 0xC0) != 0x80) return false;
    c |= static_cast<uint32_t>(b(i) & 0x3F) << (6 * (s.size() - 1 - i));
  }
  static constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  return c >= kLeast[s.size()] && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
}

// Whether s is the beginning of some well-formed sequence longer than it.
bool can_grow(const std::string& s) {
  if (s.size() >= 4) return false;
  for (int next = 0x80; next <= 0xBF; ++next) {
    const std::string longer = s + static_cast<char>(next);
    if (well_formed(longer) || can_grow(longer)) return true;
  }
  return false;
}

std::string decode_whole(const std::string& s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    size_t take = 0;
    for (size_t n = 1; n <= 4 && i + n <= s.size(); ++n)
      if (well_formed(s.substr(i, n))) take = n;
    if (take) {
      out += s.substr(i, take);
      i += take;
      continue;
    }
    size_t subpart = 1;  // the longest beginning of a well-formed sequence, or one byte
    while (subpart < 3 && i + subpart < s.size() && can_grow(s.substr(i, subpart + 1))) ++subpart;
    out += kBad;
    i += subpart;
  }
  return out;
}

std::string decode(const std::vector<std::string>& pieces, bool strip = false) {
  IncrementalDecoder decoder(strip);
  std::string out;
  for (const std::string& piece : pieces) decoder.push(piece, out);
  decoder.flush(out);
  return out;
}

TEST(IncrementalDecoder, WaitsForTheRestOfACharacter) {
  IncrementalDecoder d;
  EXPECT_EQ(d.push("a\xF0\x9F"), "a");
  EXPECT_EQ(d.num_pending(), 2);
  EXPECT_EQ(d.push("\x99"), "");
  EXPECT_EQ(d.push("\x82z"), "\xF0\x9F\x99\x82z");
  EXPECT_EQ(d.flush(), "");
}

// What bytes.decode("utf-8", "replace") of Python 3.11 gives.
TEST(IncrementalDecoder, ReplacesMaximalSubparts) {
  EXPECT_EQ(decode({"\xF0\x9F\x99"}), kBad);
  EXPECT_EQ(decode({"\xF0\x9F", "A"}), kBad + "A");
  EXPECT_EQ(decode({"\xC0\xAF"}), kBad + kBad);
  EXPECT_EQ(decode({"\xE0\x80\xAF"}), kBad + kBad + kBad);
  EXPECT_EQ(decode({"\xED\xA0\x80"}), kBad + kBad + kBad);
  EXPECT_EQ(decode({"\xF4\x90\x80\x80"}), kBad + kBad + kBad + kBad);
  EXPECT_EQ(decode({"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
                    "A"}),
            kBad + kBad + kBad + kBad + "A");
  EXPECT_EQ(decode({"\x80\xBF\xFF\xFE"}), kBad + kBad + kBad + kBad);
  EXPECT_EQ(decode({"\xE4\xBD", "\xE4\xBD\xA0"}), kBad + "\xE4\xBD\xA0");
  EXPECT_EQ(decode({std::string("\0x", 2)}), std::string("\0x", 2));
}

TEST(IncrementalDecoder, StripsOneSpaceAtTheStart) {
  EXPECT_EQ(decode({" a", " b"}, true), "a b");
  EXPECT_EQ(decode({"", " ", " a"}, true), " a");
  EXPECT_EQ(decode({"a", " b"}, true), "a b");
  EXPECT_EQ(decode({" a"}, false), " a");
}

TEST(IncrementalDecoder, AnySplitGivesTheWhole) {
  std::mt19937 random(7);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const std::vector<std::string> parts = {"a",        "é",        "你",       "🙂",     "\xF0\x9F",
                                          "\x80",     "\xE2\x82", "\xC3",     "\xED\xA0", "\xF4\x8F",
                                          "\xF4\x90", "\xE0\x9F", "\xE0\xA0", "\xFF",     "\xF0\x90",
                                          "\xF0\x8F", "\xC1",     "\xBF\xBF", " "};
  for (int round = 0; round < 5000; ++round) {
    std::string s;
    for (int n = pick(8); n >= 0; --n)
      s += pick(3) ? parts[pick(static_cast<int>(parts.size()))] : std::string(1, static_cast<char>(pick(256)));
    std::vector<std::string> pieces;
    for (size_t i = 0; i < s.size();) {
      const size_t n = 1 + pick(3);
      pieces.push_back(s.substr(i, n));
      i += n;
    }
    ASSERT_EQ(decode(pieces), decode_whole(s)) << testing::PrintToString(s);
    // Every delta is whole characters: it decodes to itself.
    IncrementalDecoder d;
    for (const std::string& piece : pieces) {
      const std::string delta = d.push(piece);
      ASSERT_EQ(decode_whole(delta), delta);
    }
  }
}

}  // namespace
}  // namespace tinyserve
