// Every normaliser, pre-tokenizer and decoder by itself, against what the `tokenizers` package does
// (components.json of tests/golden/make_tokenizer_goldens.py).

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "text/added_tokens.h"
#include "text/byte_trie.h"
#include "text/charsmap.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/unicode.h"
#include "text/unicode_normalize.h"

namespace tinyserve {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const Json& components() {
  static const Json json = parse_json(read_text_file(fs::path(TINYSERVE_TOKENIZER_GOLDENS) / "components.json"), "components.json");
  return json;
}

Json config_of(const Json& test_case) {
  if (test_case["config"].is_object()) return test_case["config"];
  const Json file = parse_json(
      read_text_file(fs::path(TINYSERVE_SOURCE_DIR) / "tests/golden/tokenizers/unigram/tokenizer.json"), "unigram");
  return file["normalizer"]["normalizers"][0];
}

TEST(Normalizers, AgreeWithThePackage) {
  Regex::Scratch scratch;
  int cases = 0;
  for (const Json& test_case : components()["cases"]) {
    if (test_case["kind"] != "normalizer") continue;
    ++cases;
    const auto normalizer = make_normalizer(config_of(test_case), "test");
    for (size_t i = 0; i < components()["inputs"].size(); ++i) {
      auto text = components()["inputs"][i].get<std::string>();
      bool at_start = true;
      normalizer->apply(text, at_start, scratch);
      EXPECT_EQ(text, test_case["outputs"][i].get<std::string>())
          << test_case["config"].dump().substr(0, 200) << " of " << components()["inputs"][i];
    }
  }
  EXPECT_GE(cases, 23);
}

TEST(PreTokenizers, AgreeWithThePackage) {
  Regex::Scratch scratch;
  int cases = 0;
  for (const Json& test_case : components()["cases"]) {
    if (test_case["kind"] != "pre_tokenizer") continue;
    ++cases;
    const PreTokenizers pre_tokenizers(test_case["config"], "test", false);
    for (size_t i = 0; i < components()["inputs"].size(); ++i) {
      const auto text = components()["inputs"][i].get<std::string>();
      PreTokenized t(text, true);
      pre_tokenizers.apply(t, scratch);
      std::vector<std::string> pieces;
      for (const auto& piece : t.pieces) pieces.emplace_back(t.view(piece));
      EXPECT_EQ(pieces, test_case["outputs"][i].get<std::vector<std::string>>())
          << test_case["config"] << " of " << components()["inputs"][i];
    }
  }
  EXPECT_GE(cases, 140);
}

TEST(Decoders, AgreeWithThePackage) {
  int cases = 0;
  for (const Json& test_case : components()["cases"]) {
    if (test_case["kind"] != "decoder") continue;
    ++cases;
    const TokenDecoder decoder(test_case["config"], "test");
    for (size_t i = 0; i < components()["tokens"].size(); ++i)
      EXPECT_EQ(decoder.decode(components()["tokens"][i].get<std::vector<std::string>>()),
                test_case["outputs"][i].get<std::string>())
          << test_case["config"] << " of " << components()["tokens"][i];
  }
  EXPECT_GE(cases, 13);
}

TEST(Decoders, JoinWithSpacesWhenThereIsNone) {
  EXPECT_EQ(TokenDecoder().decode({"a", "b"}), "a b");
  EXPECT_EQ(TokenDecoder().bytes("b", false), " b");
  EXPECT_EQ(TokenDecoder().bytes("b", true), "b");
}

TEST(Decoders, GiveTheBytesOfOneToken) {
  const TokenDecoder decoder(
      parse_json(R"({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                     {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})",
                 "test"),
      "test");
  EXPECT_EQ(decoder.bytes("▁the", false), " the");
  EXPECT_EQ(decoder.bytes("▁the", true), "the");
  EXPECT_EQ(decoder.bytes("<0xE2>", false), "\xE2");
  EXPECT_EQ(decoder.bytes("<0xE2>", true), "\xE2");
}

// ---------------------------------------------------------------------------- UTF-8 and Unicode

TEST(Unicode, ReplacesMaximalSubparts) {
  const auto replaced = [](std::string_view text) {
    std::string storage;
    return std::string(unicode::replace_invalid_utf8(text, storage));
  };
  // As Python's bytes.decode(errors="replace") has it; R stands for U+FFFD.
  const auto expect = [&](std::string_view bytes, std::string pattern) {
    for (size_t at = pattern.find('R'); at != pattern.npos; at = pattern.find('R')) pattern.replace(at, 1, "\xEF\xBF\xBD");
    EXPECT_EQ(replaced(bytes), pattern) << fmt::format("{:?}", bytes);
  };
  expect("plain é 日 👍", "plain é 日 👍");
  expect("a\x80z", "aRz");
  expect("\xE2\x96", "R");
  expect("\xE2\x96z", "Rz");
  expect("\xE2\x96\xE2\x96\x81", "R▁");
  expect("\xF0\x9F\x91", "R");
  expect("\xF0\x80\x80", "RRR");
  expect("\xED\xA0\x80", "RRR");
  expect("\xC0\xAF", "RR");
  expect("\xE0\x80\x80", "RRR");
  expect("\xF4\x90\x80\x80", "RRRR");
  expect("\xF5\xFF", "RR");
  expect("12345678\xFF" "12345678\xC3", "12345678R12345678R");
}

TEST(Unicode, NormalizesAMegabyteOfMarksQuickly) {
  // Marks of descending combining class: sorted by insertion this would take hours.
  std::string text = "a";
  for (int i = 0; i < 250'000; ++i) text += i % 2 == 0 ? "\xCC\x81" : "\xCC\xA7";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(unicode::normalize(text, unicode::NormalForm::kNfd).size(), text.size());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(Unicode, MeasuresGraphemes) {
  EXPECT_EQ(unicode::grapheme_length("abc"), 1u);
  EXPECT_EQ(unicode::grapheme_length("e\xCC\x81x"), 3u);
  EXPECT_EQ(unicode::grapheme_length("\r\nx"), 2u);
  EXPECT_EQ(unicode::grapheme_length("👩‍👩‍👧‍👦x"), std::string_view("👩‍👩‍👧‍👦").size());
  EXPECT_EQ(unicode::grapheme_length(""), 0u);
}

// ---------------------------------------------------------------------------- added tokens, tries

TEST(ByteTrie, FindsTheLongestKey) {
  ByteTrie trie;
  int32_t value = -1;
  EXPECT_EQ(trie.longest_prefix("abc", value), 0u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(trie.insert(std::to_string(i), i), -1);
  EXPECT_EQ(trie.insert("12", 5), 12);
  EXPECT_EQ(trie.longest_prefix("9995", value), 3u);
  EXPECT_EQ(value, 999);
  EXPECT_EQ(trie.longest_prefix("12x", value), 2u);
  EXPECT_EQ(value, 5);
}

TEST(AddedTokenMatcher, RefusesTwoTokensOfOneText) {
  AddedToken a{.content = "x", .id = 1}, b{.content = "X", .id = 2};
  AddedTokenMatcher matcher;
  matcher.add(a, "x", "file");
  EXPECT_THROW(matcher.add(b, "x", "file"), InputError);
  EXPECT_THROW(matcher.add(b, "", "file"), InputError);
  EXPECT_THROW(matcher.add(b, std::string(5000, 'x'), "file"), InputError);
}

// ---------------------------------------------------------------------------- post-processors

PostProcessor post_processor(const char* json) {
  return PostProcessor(parse_json(json, "test"), "test", [](int64_t id) { return id < 100; });
}

TEST(PostProcessor, AddsTokensAround) {
  const auto bert = post_processor(R"({"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]})");
  EXPECT_THAT(bert.apply({7, 8}, true), ElementsAre(1, 7, 8, 2));
  EXPECT_THAT(bert.apply({7, 8}, false), ElementsAre(7, 8));
  const auto chain = post_processor(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
      {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "two", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
       "pair": [], "special_tokens": {"two": {"id": "two", "ids": [3, 4], "tokens": ["x", "y"]}}}]})");
  EXPECT_THAT(chain.apply({7}, true), ElementsAre(3, 4, 7));
  EXPECT_THAT(chain.apply({}, false), IsEmpty());
}

TEST(PostProcessor, RefusesBrokenTemplates) {
  const auto refused = [](const char* json, const char* why) {
    try {
      post_processor(json);
      FAIL() << json;
    } catch (const InputError& e) {
      EXPECT_THAT(e.what(), HasSubstr(why));
    }
  };
  refused(R"({"type": "Nothing"})", "Nothing");
  refused(R"({"type": "BertProcessing", "sep": ["</s>", 200], "cls": ["<s>", 1]})", "sep");
  refused(R"({"type": "BertProcessing", "sep": ["</s>", 1099511627776], "cls": ["<s>", 1]})", "outside");
  refused(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}], "special_tokens": {}})", "special_tokens");
  refused(R"({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}], "special_tokens": {}})", "A");
  refused(R"({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}, {"Sequence": {"id": "A"}}], "special_tokens": {}})",
          "template");
  refused(R"({"type": "TemplateProcessing", "single": [7], "special_tokens": {}})", "single[0]");
}

// ---------------------------------------------------------------------------- charsmap

TEST(Charsmap, RefusesWhatLeadsOutside) {
  EXPECT_THROW(Charsmap("", "x"), InputError);
  EXPECT_THROW(Charsmap(std::string("\x10\0\0\0", 4), "x"), InputError);
  EXPECT_THROW(Charsmap(std::string("\4\0\0\0\xFF\xFF\0\0", 8), "x"), InputError);
  std::string huge("\0\4\0\0", 4);
  huge += std::string(1024, '\0');
  Charsmap empty(huge, "x");  // 256 free units: no rule
  EXPECT_EQ(empty.apply("abc"), "abc");
  huge[5] = '\xFF', huge[6] = '\xFF';  // an offset far outside
  EXPECT_THROW(Charsmap(huge, "x"), InputError);
  // A rule for "a" whose value is no value unit and points into the second byte of "é".
  std::string inside("\0\4\0\0", 4);
  inside += std::string(1024, '\0') + "\xC3\xA9" + std::string(1, '\0');
  const auto set_unit = [&](size_t i, uint32_t unit) { std::memcpy(&inside[4 + 4 * i], &unit, 4); };
  set_unit('a', 'a' | 1u << 8 | ('a' ^ 1u) << 10);  // its children and value stand around unit 1
  set_unit(1, 1);
  EXPECT_THROW(Charsmap(inside, "x"), InputError);
  set_unit(1, 0);
  EXPECT_EQ(Charsmap(inside, "x").apply("ab"), "éb");
  EXPECT_THROW(decode_base64("abc", "x"), InputError);
  EXPECT_THROW(decode_base64("ab!=", "x"), InputError);
  EXPECT_EQ(decode_base64("aGVsbG8=", "x"), "hello");
}

}  // namespace
}  // namespace tinyserve
