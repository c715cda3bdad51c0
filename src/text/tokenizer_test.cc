#include "text/tokenizer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mapped_file.h"

namespace tinyserve {
namespace {

namespace fs = std::filesystem;
using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;

const fs::path kRoot = TINYSERVE_SOURCE_DIR;
const fs::path kTokenizers = kRoot / "tests/golden/tokenizers";

// A folder that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "tokenizer-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }
  void write(const char* name, std::string_view text) const { std::ofstream(path_ / name, std::ios::binary) << text; }

 private:
  fs::path path_;
};

std::string what_is_wrong(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& e) {
    return e.what();
  }
  return "nothing";
}

std::string error_of_json(const std::string& json) {
  return what_is_wrong([&] { Tokenizer::from_json(json, "tokenizer.json of X"); });
}

// ---------------------------------------------------------------------------- the bundled tokenizer

TEST(Tokenizer, LoadsTheBundledModelFolder) {
  const auto start = std::chrono::steady_clock::now();
  const auto tokenizer = Tokenizer::load(kRoot / "models/tiny-16m-32k");
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  RecordProperty("load_ms", std::to_string(took.count() * 1e3));
  EXPECT_LT(took.count(), 1.0);  // 10 ms; sanitizers and a loaded machine take more
  EXPECT_EQ(tokenizer->vocab_size(), 8192);
  EXPECT_EQ(tokenizer->eos_id(), tokenizer->token_to_id("<|endoftext|>"));
  EXPECT_EQ(tokenizer->pad_id(), tokenizer->token_to_id("<|pad|>"));
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
  EXPECT_EQ(tokenizer->eos_token(), "<|endoftext|>");
  EXPECT_TRUE(tokenizer->is_special(*tokenizer->eos_id()));
  EXPECT_FALSE(tokenizer->is_special(100));
  EXPECT_THAT(tokenizer->chat_template(), HasSubstr("<|im_start|>assistant"));
  EXPECT_FALSE(tokenizer->strips_leading_space());
}

TEST(Tokenizer, TakesSpecialTokensInTextOnlyWhenAsked) {
  const auto tokenizer = Tokenizer::load(kRoot / "models/tiny-16m-32k");
  const int32_t end = *tokenizer->token_to_id("<|im_end|>");
  const auto parsed = tokenizer->encode("a<|im_end|>", false, true);
  EXPECT_EQ(parsed.back(), end);
  const auto plain = tokenizer->encode("a<|im_end|>", false, false);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), end), 0);
  EXPECT_EQ(tokenizer->decode(plain, true), "a<|im_end|>");
  EXPECT_EQ(tokenizer->decode(parsed, true), "a");
  EXPECT_EQ(tokenizer->decode(parsed, false), "a<|im_end|>");
}

TEST(Tokenizer, IgnoresIdsOutsideTheVocabulary) {
  const auto tokenizer = Tokenizer::load(kRoot / "models/tiny-16m-32k");
  for (int32_t id : {-1, 8192, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer->token_bytes(id), "");
    EXPECT_EQ(tokenizer->id_to_token(id), "");
    EXPECT_FALSE(tokenizer->is_special(id));
    EXPECT_EQ(tokenizer->decode(std::vector{id}, false), "");
  }
  EXPECT_EQ(tokenizer->token_to_id("no such token"), std::nullopt);
}

TEST(Tokenizer, ServesManyThreads) {
  const auto tokenizer = Tokenizer::load(kRoot / "models/tiny-16m-32k");
  const std::string text = read_text_file(fs::path(TINYSERVE_TEXT_VALID) / "winesburg-ohio-sherwood-anderson.txt").substr(0, 40'000);
  const auto expected = tokenizer->encode(text, false);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) wrong += tokenizer->encode(text, false) != expected || tokenizer->decode(expected, true) != text;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Tokenizer, TellsWhetherItStripsTheFirstSpace) {
  const auto open = [](const char* name) { return Tokenizer::load(kTokenizers / name); };
  for (const char* name : {"llama2", "mistral", "metaspace", "unigram", "spm_bpe", "spm_unigram"}) {
    const auto tokenizer = open(name);
    EXPECT_TRUE(tokenizer->strips_leading_space()) << name;
    EXPECT_EQ(tokenizer->token_bytes(*tokenizer->token_to_id("▁the")), " the") << name;
    EXPECT_EQ(tokenizer->first_token_bytes(*tokenizer->token_to_id("▁the")), "the") << name;
  }
  for (const char* name : {"gpt2", "llama3", "gemma"}) EXPECT_FALSE(open(name)->strips_leading_space()) << name;
  const auto tokenizer = open("llama2");
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->token_to_id("<0xE2>")), "\xE2");
}

// ---------------------------------------------------------------------------- folders

TEST(TokenizerFolder, ReadsVocabAndMerges) {
  const Json gpt2 = parse_json(read_text_file(kTokenizers / "gpt2/tokenizer.json"), "gpt2");
  TemporaryFolder folder;
  folder.write("vocab.json", gpt2["model"]["vocab"].dump());
  std::string merges = "#version: 0.2\n";
  for (const auto& rule : gpt2["model"]["merges"]) merges += rule[0].get<std::string>() + " " + rule[1].get<std::string>() + "\n";
  folder.write("merges.txt", merges);
  folder.write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": {"__type": "AddedToken", "content": "<|endoftext|>",
      "lstrip": false, "normalized": true, "rstrip": false, "single_word": false}, "eos_token": "<|endoftext|>"})");
  const auto tokenizer = Tokenizer::load(folder.path());
  const auto reference = Tokenizer::load(kTokenizers / "gpt2");
  const std::string text = "It's 1924, and the  river<|endoftext|> ran\n\nhigh — 日本語!";
  EXPECT_EQ(tokenizer->encode(text, false), reference->encode(text, false));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, false), false), text);
  EXPECT_EQ(tokenizer->encode("a", true).front(), tokenizer->token_to_id("<|endoftext|>"));
  EXPECT_TRUE(tokenizer->is_special(*tokenizer->bos_id()));
  fs::remove(folder.path() / "merges.txt");
  EXPECT_THAT(what_is_wrong([&] { Tokenizer::load(folder.path()); }), HasSubstr("merges.txt"));
}

TEST(TokenizerFolder, ReadsSentencePiece) {
  TemporaryFolder folder;
  fs::copy_file(kTokenizers / "spm_bpe/tokenizer.model", folder.path() / "tokenizer.model");
  const auto plain = Tokenizer::load(folder.path());
  EXPECT_EQ(plain->encode("the", true), (std::vector{*plain->bos_id(), *plain->token_to_id("▁the")}));
  folder.write("tokenizer_config.json", R"({"add_bos_token": false, "add_eos_token": true, "bos_token": "<s>", "eos_token": {"content": "</s>"},
      "added_tokens_decoder": {"1": {"content": "<s>", "special": true}, "1500": {"content": "<|im_start|>", "special": true, "normalized": false}}})");
  const auto tokenizer = Tokenizer::load(folder.path());
  EXPECT_EQ(tokenizer->encode("the", true), (std::vector{*plain->token_to_id("▁the"), *tokenizer->eos_id()}));
  EXPECT_EQ(tokenizer->token_to_id("<|im_start|>"), 1500);
  EXPECT_EQ(tokenizer->vocab_size(), 1501);
  EXPECT_THAT(tokenizer->encode("<|im_start|>", false), ElementsAre(1500));
  EXPECT_EQ(tokenizer->decode(std::vector{1500}, false), "<|im_start|>");
  EXPECT_EQ(tokenizer->decode(std::vector{1500}, true), "");
}

TEST(TokenizerFolder, FindsTheChatTemplate) {
  TemporaryFolder folder;
  fs::copy_file(kTokenizers / "gpt2/tokenizer.json", folder.path() / "tokenizer.json");
  EXPECT_EQ(Tokenizer::load(folder.path())->chat_template(), "");
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  EXPECT_EQ(Tokenizer::load(folder.path())->chat_template(), "D");
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "T"}]})");
  EXPECT_EQ(Tokenizer::load(folder.path())->chat_template(), "T");
  folder.write("tokenizer_config.json", R"({"chat_template": 7})");
  EXPECT_THAT(what_is_wrong([&] { Tokenizer::load(folder.path()); }), HasSubstr("tokenizer_config.json.chat_template"));
  folder.write("tokenizer_config.json", R"({"chat_template": "C"})");
  EXPECT_EQ(Tokenizer::load(folder.path())->chat_template(), "C");
  folder.write("chat_template.jinja", "J\n");
  EXPECT_EQ(Tokenizer::load(folder.path())->chat_template(), "J\n");
}

TEST(TokenizerFolder, TakesSpecialTokensFromTheConfig) {
  set_log_level(LogLevel::kError);
  TemporaryFolder folder;
  fs::copy_file(kTokenizers / "gpt2/tokenizer.json", folder.path() / "tokenizer.json");
  folder.write("special_tokens_map.json", R"({"eos_token": "Ġthe", "pad_token": "not in the vocabulary"})");
  folder.write("tokenizer_config.json", R"({"bos_token": "<|endoftext|>", "added_tokens_decoder": {"901": {"content": "<new>", "special": false},
      "3": {"content": "<in the way>"}}})");
  const auto tokenizer = Tokenizer::load(folder.path());
  EXPECT_EQ(tokenizer->bos_id(), tokenizer->token_to_id("<|endoftext|>"));
  EXPECT_EQ(tokenizer->eos_id(), tokenizer->token_to_id("Ġthe"));
  EXPECT_TRUE(tokenizer->is_special(*tokenizer->eos_id()));
  EXPECT_EQ(tokenizer->pad_id(), std::nullopt);
  EXPECT_EQ(tokenizer->encode("<new>", false), std::vector{901});
  EXPECT_EQ(tokenizer->token_to_id("<in the way>"), std::nullopt);
  EXPECT_EQ(tokenizer->id_to_token(900), "");  // a hole
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"1099511627776": {"content": "<far>"}}})");
  EXPECT_THAT(what_is_wrong([&] { Tokenizer::load(folder.path()); }), HasSubstr("added_tokens_decoder"));
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"2000000000": {"content": "<far>"}}})");
  EXPECT_THAT(what_is_wrong([&] { Tokenizer::load(folder.path()); }), HasSubstr("<far>"));
  set_log_level(LogLevel::kInfo);
}

TEST(TokenizerFolder, NamesWhatIsMissing) {
  TemporaryFolder folder;
  EXPECT_THAT(what_is_wrong([&] { Tokenizer::load(folder.path()); }), HasSubstr("has no tokenizer"));
  folder.write("tokenizer.json", "{");
  EXPECT_THAT(what_is_wrong([&] { Tokenizer::load(folder.path()); }), HasSubstr("tokenizer.json"));
  folder.write("tokenizer.model", "not a model");
  fs::remove(folder.path() / "tokenizer.json");
  EXPECT_THAT(what_is_wrong([&] { Tokenizer::load(folder.path()); }), HasSubstr("tokenizer.model"));
}

// ---------------------------------------------------------------------------- hostile files

std::string bpe(const std::string& model_fields, const std::string& other = "") {
  return R"({"version": "1.0", )" + other + R"("model": {"type": "BPE", )" + model_fields + "}}";
}

TEST(HostileTokenizer, NamesTheFieldAtFault) {
  const std::string ok = R"("vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"])";
  EXPECT_EQ(error_of_json(bpe(ok)), "nothing");
  for (const auto& [json, why] : std::vector<std::pair<std::string, std::string>>{
           {"", "not valid JSON"},
           {"[]", "not a JSON object"},
           {"{}", "model is missing"},
           {R"({"model": 7})", "model is not an object"},
           {R"({"version": "2.0", "model": {}})", "version"},
           {R"({"model": {"type": "WordPiece", "vocab": {}}})", "WordPiece"},
           {R"({"model": {"type": "WordLevel", "vocab": {}}})", "WordLevel"},
           {bpe(R"("vocab": {"a": 0})"), "merges is missing"},
           {bpe(R"("vocab": [], "merges": [])"), "vocab is not an object"},
           {bpe(R"("vocab": {"a": 0, "b": 0}, "merges": [])"), "to two tokens"},
           {bpe(R"("vocab": {"a": -1}, "merges": [])"), "vocab[\"a\"] is -1"},
           {bpe(R"("vocab": {"a": 1099511627776}, "merges": [])"), "vocab[\"a\"] is 1099511627776"},
           {bpe(R"("vocab": {"a": 18446744073709551615}, "merges": [])"), "vocab[\"a\"]"},
           {bpe(R"("vocab": {"a": 2000000000}, "merges": [])"), "vocab[\"a\"]"},
           {bpe(R"("vocab": {"a": 1.5}, "merges": [])"), "not a whole number"},
           {bpe(R"("vocab": {"a": "0"}, "merges": [])"), "not a whole number"},
           {bpe(R"("vocab": {"a": 0}, "merges": ["a b"])"), "needs the token \"b\""},
           {bpe(R"("vocab": {"a": 0, "b": 1}, "merges": ["a b"])"), "needs the token \"ab\""},
           {bpe(R"("vocab": {"a": 0}, "merges": ["a"])"), "merges[0]"},
           {bpe(R"("vocab": {"a": 0}, "merges": [["a", "a", "a"]])"), "merges[0]"},
           {bpe(R"("vocab": {"a": 0}, "merges": [7])"), "merges[0]"},
           {bpe(ok + R"(, "dropout": 0.1)"), "dropout"},
           {bpe(ok + R"(, "fuse_unk": "yes")"), "fuse_unk is not true or false"},
           {bpe(ok, R"("normalizer": {"type": "BertNormalizer"}, )"), "BertNormalizer"},
           {bpe(ok, R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "X"}]}, )"), "normalizer.normalizers[1]"},
           {bpe(ok, R"("normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, )"), "precompiled_charsmap"},
           {bpe(ok, R"("normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}, )"), "normalizer.pattern"},
           {bpe(ok, R"("normalizer": {}, )"), "normalizer.type is missing"},
           {bpe(ok, R"("pre_tokenizer": {"type": "UnicodeScripts"}, )"), "UnicodeScripts"},
           {bpe(ok, R"("pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "Exploded", "invert": false}, )"), "Exploded"},
           {bpe(ok, R"("pre_tokenizer": {"type": "FixedLength", "length": 0}, )"), "length"},
           {bpe(ok, R"("pre_tokenizer": {"type": "Metaspace", "replacement": "ab"}, )"), "replacement"},
           {bpe(ok, R"("decoder": {"type": "WordPiece"}, )"), "WordPiece"},
           {bpe(ok, R"("decoder": {"type": "CTC"}, )"), "CTC"},
           {bpe(ok, R"("decoder": {"type": "Strip", "content": " ", "start": -1, "stop": 0}, )"), "start"},
           {bpe(ok, R"("post_processor": {"type": "X"}, )"), "post_processor"},
           {bpe(ok, R"("added_tokens": [{"id": 1099511627776, "content": "x"}], )"), "added_tokens[0].id"},
           {bpe(ok, R"("added_tokens": [{"id": 2000000000, "content": "x"}], )"), "beyond the vocabulary"},
           {bpe(ok, R"("added_tokens": [{"id": 1, "content": "x"}], )"), "belongs to"},
           {bpe(ok, R"("added_tokens": [{"id": 1, "content": "a"}], )"), "elsewhere"},
           {bpe(ok, R"("added_tokens": [{"id": 3}], )"), "added_tokens[0].content is missing"},
           {bpe(ok, R"("added_tokens": ["x"], )"), "added_tokens[0]"},
           {bpe(ok, R"("added_tokens": {}, )"), "added_tokens is not an array"},
           {R"({"model": {"type": "Unigram", "vocab": {}}})", "vocab is not an array"},
           {R"({"model": {"type": "Unigram", "vocab": [["a"]]}})", "vocab[0]"},
           {R"({"model": {"type": "Unigram", "vocab": [["a", "b"]]}})", "vocab[0]"},
           {R"({"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 1}})", "unk_id"},
           {R"({"model": {"type": "Unigram", "vocab": [], "unk_id": 0}})", "unk_id"},
           {std::string(100'000, '['), "deep"},
       }) {
    EXPECT_THAT(error_of_json(json), testing::AllOf(HasSubstr("tokenizer.json of X"), HasSubstr(why))) << json.substr(0, 300);
  }
}

TEST(HostileTokenizer, EveryTruncationIsAnError) {
  const std::string json = read_text_file(kTokenizers / "affixes/tokenizer.json");
  for (size_t n = 0; n < json.size(); n += 97) EXPECT_THAT(error_of_json(json.substr(0, n)), HasSubstr("not valid JSON")) << n;
  const std::string model = read_text_file(kTokenizers / "spm_bpe/tokenizer.model");
  for (size_t n = 0; n < model.size(); n += 501)  // may be a model with fewer pieces
    EXPECT_THAT(what_is_wrong([&] {
                  Tokenizer::from_sentencepiece(std::string_view(model).substr(0, n), "m.model")->encode("some text", true);
                }),
                AnyOf("nothing", HasSubstr("m.model")))
        << n;
}

TEST(HostileTokenizer, ChangedBytesOfAModelFileDoNoHarm) {
  for (const char* name : {"spm_bpe", "spm_unigram"}) {
    const std::string model = read_text_file(kTokenizers / name / "tokenizer.model");
    uint32_t x = 7;
    const auto random = [&x](size_t below) { return (x = x * 1664525 + 1013904223) / 65536 % below; };
    for (int i = 0; i < 150; ++i) {
      std::string changed = model;
      const size_t around = i % 2 ? random(65536) % model.size() : model.size() - 1 - random(400);
      for (size_t k = 0; k <= random(4); ++k) changed[std::min(around + random(32), model.size() - 1)] = static_cast<char>(random(256));
      what_is_wrong([&] {
        const auto tokenizer = Tokenizer::from_sentencepiece(changed, "m.model");
        tokenizer->decode(tokenizer->encode("some text, é 日本 ﬁ <s>\n\xFF", true), false);
      });
    }
  }
}

TEST(HostileTokenizer, SaysWhenTextCannotBeExpressed) {
  const auto bad_unk = Tokenizer::from_json(bpe(R"("unk_token": "?", "vocab": {"a": 0}, "merges": [])"), "x");
  EXPECT_THAT(bad_unk->encode("aa", false), ElementsAre(0, 0));
  EXPECT_THAT(what_is_wrong([&] { bad_unk->encode("ab", false); }), HasSubstr("unknown token"));
  const auto no_unk = Tokenizer::from_json(R"({"model": {"type": "Unigram", "vocab": [["a", -1]]}})", "x");
  EXPECT_THAT(what_is_wrong([&] { no_unk->encode("ab", false); }), HasSubstr("unk_id"));
}

// ---------------------------------------------------------------------------- hostile texts

TEST(HostileText, OneMegabyteOfOneWordTakesNoQuadraticTime) {
  std::string random;
  for (uint32_t i = 0, x = 1; i < 1'000'000; ++i) random += static_cast<char>('a' + (x = x * 1664525 + 1013904223) % 26);
  for (const char* name : {"gpt2", "llama3", "llama2", "mistral", "gemma", "unigram_bytes", "qwen2", "deepseek", "affixes"}) {
    const auto tokenizer = Tokenizer::load(kTokenizers / name);
    for (const std::string& text : {std::string(1'000'000, 'a'), random, std::string(1'000'000, ' '), std::string(1'000'000, '<'),
                                    std::string(1'000'000, '\xE2')}) {
      const auto start = std::chrono::steady_clock::now();
      const auto ids = tokenizer->encode(text, false);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      // 0.1 to 0.5 s; quadratic time would be many minutes. Sanitizers take ten times as long.
      EXPECT_LT(took.count(), 30.0) << name << " " << text.substr(0, 1);
      if (text[0] == 'a') {
        EXPECT_FALSE(ids.empty()) << name;
      }
    }
  }
}

}  // namespace
}  // namespace tinyserve
