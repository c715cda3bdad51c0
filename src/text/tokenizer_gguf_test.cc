// Tokenizers from GGUF metadata against the same ones from their own files, which the goldens of other packages check.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "model/gguf/gguf_test_util.h"
#include "text/tokenizer.h"

namespace tinyserve {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const fs::path kTokenizers = fs::path(TINYSERVE_SOURCE_DIR) / "tests/golden/tokenizers";

std::vector<std::string> strings() {
  const std::string data = read_text_file(fs::path(TINYSERVE_TOKENIZER_GOLDENS) / "strings.bin");
  std::vector<std::string> out;
  for (size_t at = 0; at < data.size();) {
    uint32_t length;
    std::memcpy(&length, data.data() + at, 4);
    out.push_back(data.substr(at + 4, length));
    at += 4 + length;
  }
  return out;
}

class GgufTokenizer : public testing::Test {
 protected:
  void SetUp() override { path_ = fs::temp_directory_path() / fmt::format("gguf_tokenizer_{}.gguf", ::getpid()); }
  void TearDown() override { fs::remove(path_); }

  std::unique_ptr<Tokenizer> load(const GgufBuilder& b) {
    std::ofstream(path_, std::ios::binary) << b.build();
    return Tokenizer::load(path_);
  }
  std::string error(const GgufBuilder& b) {
    try {
      load(b);
    } catch (const InputError& e) {
      return e.what();
    }
    return "no error";
  }

  // What a converter makes of a tokenizer.json of byte-level BPE.
  static GgufBuilder from_json(const std::string& name, const std::string& pre) {
    const Json json = parse_json(read_text_file(kTokenizers / name / "tokenizer.json"), name);
    std::vector<std::string> tokens, merges;
    std::vector<int32_t> types;
    const auto put = [&](size_t id, const std::string& text, int32_t type) {
      if (tokens.size() <= id) tokens.resize(id + 1), types.resize(id + 1, 5);
      tokens[id] = text;
      types[id] = type;
    };
    for (const auto& [text, id] : json["model"]["vocab"].items()) put(id.get<size_t>(), text, 1);
    for (const Json& token : json["added_tokens"])
      put(token["id"].get<size_t>(), token["content"].get<std::string>(), token["special"].get<bool>() ? 3 : 4);
    for (const Json& rule : json["model"]["merges"])
      merges.push_back(rule.is_string() ? rule.get<std::string>()
                                        : rule[0].get<std::string>() + " " + rule[1].get<std::string>());
    // Padding up to the size of the embedding.
    for (int i = 0; i < 7; ++i) put(tokens.size(), fmt::format("[PAD{}]", tokens.size()), 5);
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", pre).texts("tokenizer.ggml.tokens", tokens);
    b.numbers("tokenizer.ggml.token_type", GgufType::kInt32, types).texts("tokenizer.ggml.merges", merges);
    return b;
  }

  static void expect_equal(const Tokenizer& actual, const Tokenizer& expected) {
    size_t tokens = 0;
    int i = 0;
    for (const std::string& text : strings()) {
      const bool special = ++i % 2 == 0, parse = i % 3 != 0;
      const std::vector<int32_t> ids = expected.encode(text, special, parse);
      ASSERT_EQ(actual.encode(text, special, parse), ids) << text;
      ASSERT_EQ(actual.decode(ids, special), expected.decode(ids, special)) << text;
      tokens += ids.size();
    }
    EXPECT_GT(tokens, 100'000u);
  }

  fs::path path_;
};

TEST_F(GgufTokenizer, Gpt2IsTheSameAsItsTokenizerJson) {
  expect_equal(*load(from_json("gpt2", "gpt-2")), *Tokenizer::load(kTokenizers / "gpt2"));
}

TEST_F(GgufTokenizer, Qwen2IsTheSameAsItsTokenizerJson) {
  expect_equal(*load(from_json("qwen2", "qwen2")), *Tokenizer::load(kTokenizers / "qwen2"));
}

TEST_F(GgufTokenizer, Llama3IsTheSameAsItsTokenizerJson) {
  GgufBuilder b = from_json("llama3", "llama-bpe");
  b.u32("tokenizer.ggml.bos_token_id", 1100);
  expect_equal(*load(b), *Tokenizer::load(kTokenizers / "llama3"));
}

TEST_F(GgufTokenizer, ScoresAreTheSameAsTheirSentencePieceModel) {
  const std::string proto = read_text_file(kTokenizers / "spm_bpe/tokenizer.model");
  sentencepiece::SentencePieceProcessor processor;
  ASSERT_TRUE(processor.LoadFromSerializedProto({proto.data(), proto.size()}).ok());
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    tokens.push_back(processor.IdToPiece(id));
    scores.push_back(processor.GetScore(id));
    types.push_back(processor.IsUnknown(id)   ? 2
                    : processor.IsControl(id) ? 3
                    : processor.IsByte(id)    ? 6
                    : processor.IsUnused(id)  ? 5
                                              : 1);
  }
  GgufBuilder b;
  b.text("tokenizer.ggml.model", "llama")
      .texts("tokenizer.ggml.tokens", tokens)
      .numbers("tokenizer.ggml.scores", GgufType::kFloat32, scores);
  b.numbers("tokenizer.ggml.token_type", GgufType::kInt32, types)
      .u32("tokenizer.ggml.unknown_token_id", processor.unk_id());
  b.u32("tokenizer.ggml.bos_token_id", processor.bos_id()).u32("tokenizer.ggml.eos_token_id", processor.eos_id());
  expect_equal(*load(b), *Tokenizer::load(kTokenizers / "spm_bpe"));
}

GgufBuilder small() {
  GgufBuilder b;
  b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
  return b.texts("tokenizer.ggml.merges", {"a b"});
}

TEST_F(GgufTokenizer, TakesSpecialTokensAndTheTemplate) {
  GgufBuilder b = small().texts("tokenizer.ggml.tokens", {"a", "b", "ab", "<s>", "<user>", "</s>"});
  b.numbers<int32_t>("tokenizer.ggml.token_type", GgufType::kInt32, {1, 1, 1, 3, 4, 3})
      .u32("tokenizer.ggml.bos_token_id", 3);
  b.u32("tokenizer.ggml.eos_token_id", 5)
      .u32("tokenizer.ggml.padding_token_id", UINT32_MAX)
      .flag("tokenizer.ggml.add_bos_token", true);
  b.flag("tokenizer.ggml.add_eos_token", true).text("tokenizer.chat_template", "{{ messages }}");
  const auto t = load(b);
  EXPECT_EQ(t->encode("ab<user>a<s>", true), (std::vector<int32_t>{3, 2, 4, 0, 3, 5}));
  EXPECT_EQ(t->decode(std::vector<int32_t>{3, 2, 4, 5}, true), "ab<user>");
  EXPECT_EQ(t->bos_id(), 3);
  EXPECT_EQ(t->eos_id(), 5);
  EXPECT_EQ(t->pad_id(), std::nullopt);
  EXPECT_EQ(t->chat_template(), "{{ messages }}");
  EXPECT_EQ(t->vocab_size(), 6);
}

TEST_F(GgufTokenizer, TakesAnUnknownTokenOfTypeControl) {
  GgufBuilder b;
  b.text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", {"<unk>", "<bos>", "a", "\xE2\x96\x81", "aa"});
  b.numbers<float>("tokenizer.ggml.scores", GgufType::kFloat32, {-1000, -1000, -1, -2, -0.5f});
  b.numbers<int32_t>("tokenizer.ggml.token_type", GgufType::kInt32, {3, 3, 1, 1, 1});
  b.u32("tokenizer.ggml.unknown_token_id", 0).u32("tokenizer.ggml.bos_token_id", 1);
  b.flag("tokenizer.ggml.add_space_prefix", false);
  EXPECT_EQ(load(b)->encode("aa<bos>a z", true), (std::vector<int32_t>{1, 4, 1, 2, 3, 0}));
}

// Gemma's file writes user-defined runs of spaces as spaces, all other tokens with the space mark.
TEST_F(GgufTokenizer, FindsUserDefinedRunsOfSpaces) {
  GgufBuilder b;
  b.text("tokenizer.ggml.model", "llama");
  b.texts("tokenizer.ggml.tokens", {"<unk>", "<bos>", "a", "\xE2\x96\x81",
                                    "\xE2\x96\x81"
                                    "a",
                                    "  ", "    ", "\n\n", "\n"});
  b.numbers<float>("tokenizer.ggml.scores", GgufType::kFloat32, {0, 0, -1, -2, -0.5f, -1000, -1000, -1000, -3});
  b.numbers<int32_t>("tokenizer.ggml.token_type", GgufType::kInt32, {2, 3, 1, 1, 1, 4, 4, 4, 1});
  b.u32("tokenizer.ggml.unknown_token_id", 0).u32("tokenizer.ggml.bos_token_id", 1);
  b.flag("tokenizer.ggml.add_space_prefix", false).flag("tokenizer.ggml.add_bos_token", false);
  const auto t = load(b);
  const auto round_trip = [&](const std::string& text, const std::vector<int32_t>& ids) {
    EXPECT_EQ(t->encode(text, true), ids) << text;
    EXPECT_EQ(t->decode(ids, true), text);
  };
  round_trip("a a", {2, 4});
  round_trip("a  a", {2, 5, 2});
  round_trip("a   a", {2, 5, 4});
  round_trip("    a", {6, 2});
  round_trip("       a", {6, 5, 4});  // the longest first
  round_trip("a\n\n\n      a ", {2, 7, 8, 6, 5, 2, 3});
  EXPECT_EQ(t->token_bytes(6), "    ");
  EXPECT_EQ(t->token_to_id("\xE2\x96\x81\xE2\x96\x81"), 5);
  // A file that has the same run with marks as well can be read all the same.
  b = GgufBuilder().text("tokenizer.ggml.model", "llama");
  b.texts("tokenizer.ggml.tokens", {"<unk>", "a", "\xE2\x96\x81", "  ", "\xE2\x96\x81\xE2\x96\x81"});
  b.numbers<float>("tokenizer.ggml.scores", GgufType::kFloat32, {0, -1, -2, -1000, -0.5f});
  b.numbers<int32_t>("tokenizer.ggml.token_type", GgufType::kInt32, {2, 1, 1, 4, 1})
      .u32("tokenizer.ggml.unknown_token_id", 0);
  b.flag("tokenizer.ggml.add_space_prefix", false).flag("tokenizer.ggml.add_bos_token", false);
  EXPECT_EQ(load(b)->encode("a  a", true), (std::vector<int32_t>{1, 4, 1}));
}

TEST_F(GgufTokenizer, NamesTheKeyThatIsWrong) {
  const std::vector<std::string> tokens = {"a", "b", "ab"};
  const auto with = [&] { return small().texts("tokenizer.ggml.tokens", tokens); };
  EXPECT_EQ(error(with()), "no error");
  EXPECT_THAT(error(GgufBuilder()), HasSubstr("'tokenizer.ggml.model' is missing"));
  EXPECT_THAT(error(GgufBuilder().text("tokenizer.ggml.model", "bert")),
              HasSubstr("'tokenizer.ggml.model' is \"bert\"; gpt2 and llama are read"));
  EXPECT_THAT(error(GgufBuilder().text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "new")),
              AllOf(HasSubstr("'tokenizer.ggml.pre' is \"new\""), HasSubstr("these are: gpt-2")));
  EXPECT_THAT(error(small()), HasSubstr("'tokenizer.ggml.tokens' is missing"));
  EXPECT_THAT(error(small().texts("tokenizer.ggml.tokens", {})), HasSubstr("'tokenizer.ggml.tokens' holds 0 tokens"));
  EXPECT_THAT(error(small().texts("tokenizer.ggml.tokens", {"a", "b", "b"})),
              HasSubstr("'tokenizer.ggml.tokens' holds \"b\" twice, as 1 and 2"));
  EXPECT_THAT(error(small().texts("tokenizer.ggml.tokens", {"a", "b", "ab", "\xff"})),
              HasSubstr("a token (id 3) that is not UTF-8"));
  EXPECT_THAT(error(small().texts("tokenizer.ggml.tokens", {"a", "b"})),
              HasSubstr("tokenizer.ggml.merges[0] needs the token \"ab\""));
  EXPECT_THAT(error(with().numbers<int32_t>("tokenizer.ggml.token_type", GgufType::kInt32, {1, 1})),
              HasSubstr("'tokenizer.ggml.token_type' holds 2 types for 3 tokens"));
  EXPECT_THAT(error(with().numbers<int32_t>("tokenizer.ggml.token_type", GgufType::kInt32, {1, 1, 9})),
              HasSubstr("'tokenizer.ggml.token_type' must be from 0 to 6, but is 9"));
  EXPECT_THAT(error(with().u32("tokenizer.ggml.eos_token_id", 3)),
              HasSubstr("'tokenizer.ggml.eos_token_id' must be from 0 to 2, but is 3"));
  EXPECT_THAT(error(with().flag("tokenizer.ggml.add_bos_token", true)),
              HasSubstr("'tokenizer.ggml.add_bos_token' is true, but there is no"));
  GgufBuilder scored;
  scored.text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", tokens);
  EXPECT_THAT(error(scored), HasSubstr("'tokenizer.ggml.scores' is missing"));
  EXPECT_THAT(error(scored.numbers<float>("tokenizer.ggml.scores", GgufType::kFloat32, {1})),
              HasSubstr("'tokenizer.ggml.scores' holds 1 scores for 3 tokens"));
  GgufBuilder no_unknown;
  no_unknown.text("tokenizer.ggml.model", "llama")
      .texts("tokenizer.ggml.tokens", tokens)
      .numbers<float>("tokenizer.ggml.scores", GgufType::kFloat32, {0, 0, 0});
  EXPECT_THAT(error(no_unknown), HasSubstr("is not a usable SentencePiece model"));
}

}  // namespace
}  // namespace tinyserve
