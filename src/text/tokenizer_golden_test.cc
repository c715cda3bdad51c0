// The oracle is the `tokenizers` package (for .model files `sentencepiece`): tests/golden/make_tokenizer_goldens.py
// wrote the tokenizers, the strings and hashes of what the package made of them.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/mapped_file.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace tinyserve {
namespace {

namespace fs = std::filesystem;

const fs::path kTokenizers = fs::path(TINYSERVE_SOURCE_DIR) / "tests/golden/tokenizers";
const fs::path kGoldens = TINYSERVE_TOKENIZER_GOLDENS;  // goldens.tar.xz, unpacked by CMake
const fs::path kTextValid = TINYSERVE_TEXT_VALID;       // text-valid.tar.xz, unpacked by CMake

uint32_t crc32(std::string_view data) {
  static const auto table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = c & 1 ? 0xEDB88320 ^ c >> 1 : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  uint32_t c = 0xFFFFFFFF;
  for (unsigned char byte : data) c = table[(c ^ byte) & 0xFF] ^ c >> 8;
  return c ^ 0xFFFFFFFF;
}

uint16_t folded(std::string_view data) {
  const uint32_t crc = crc32(data);
  return static_cast<uint16_t>(crc ^ crc >> 16);
}

uint16_t ids_hash(std::span<const int32_t> ids) {
  return folded({reinterpret_cast<const char*>(ids.data()), ids.size_bytes()});
}

// Reads little-endian numbers from a file's content.
class Reader {
 public:
  explicit Reader(const fs::path& path) : data_(read_text_file(path)) {}
  bool done() const { return at_ >= data_.size(); }
  template <typename T>
  T get() {
    T value;
    EXPECT_LE(at_ + sizeof value, data_.size());
    std::memcpy(&value, data_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::string bytes(size_t n) {
    at_ += n;
    return data_.substr(at_ - n, n);
  }

 private:
  std::string data_;
  size_t at_ = 0;
};

// strings.bin, then text-valid in pieces (the script's head says which).
const std::vector<std::string>& all_strings() {
  static const std::vector<std::string> strings = [] {
    std::vector<std::string> out;
    Reader reader(kGoldens / "strings.bin");
    while (!reader.done()) out.push_back(reader.bytes(reader.get<uint32_t>()));
    EXPECT_GE(out.size(), 20'000u);
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(kTextValid)) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    EXPECT_EQ(files.size(), 6u);
    for (const auto& file : files) {
      const std::string data = read_text_file(file);
      for (size_t begin = 0; begin < data.size();) {
        const size_t newline = data.find('\n', begin + 4096);
        const size_t end = newline == std::string::npos ? data.size() : newline + 1;
        out.push_back(data.substr(begin, end - begin));
        begin = end;
      }
      out.push_back(data);
    }
    return out;
  }();
  return strings;
}

std::unique_ptr<Tokenizer> open(const std::string& name) {
  if (name == "tiny") return Tokenizer::load(fs::path(TINYSERVE_SOURCE_DIR) / "models/tiny-16m-32k");
  const fs::path folder = kTokenizers / name;
  if (fs::exists(folder / "tokenizer.json"))
    return Tokenizer::from_json(read_text_file(folder / "tokenizer.json"), (folder / "tokenizer.json").string());
  return Tokenizer::from_sentencepiece(read_text_file(folder / "tokenizer.model"), (folder / "tokenizer.model").string());
}

class TokenizerGolden : public testing::TestWithParam<const char*> {
 protected:
  std::string name() const { return GetParam(); }
  bool is_sentencepiece() const { return name().starts_with("spm_"); }
};

TEST_P(TokenizerGolden, EncodesAndDecodesAsThePackage) {
  const auto tokenizer = open(name());
  Reader reader(kGoldens / (name() + ".bin"));
  const auto& strings = all_strings();
  size_t wrong = 0;
  std::string report;
  for (size_t i = 0; i < strings.size(); ++i) {
    const auto expected_ids = reader.get<uint16_t>(), expected_count = reader.get<uint16_t>();
    const auto expected_text = reader.get<uint16_t>();
    const bool add_special = !is_sentencepiece() && i % 2 == 0, parse_special = !is_sentencepiece() && i % 7 != 3;
    const bool skip_special = is_sentencepiece() || i % 3 == 0;
    const auto ids = tokenizer->encode(strings[i], add_special, parse_special);
    const bool ids_agree = ids_hash(ids) == expected_ids && std::min<size_t>(ids.size(), 65535) == expected_count;
    const std::string text = tokenizer->decode(ids, skip_special);
    if (ids_agree && folded(text) == expected_text) continue;
    if (++wrong > 12) continue;
    report += fmt::format("\n  string {} {:?}: {}", i, strings[i].substr(0, 80),
                          ids_agree ? "the ids agree, the decoded text does not: " : "");
    if (ids_agree) report += fmt::format("{:?}", text.substr(0, 80));
    else report += fmt::format("{} ids where {} are expected: {}", ids.size(), expected_count,
                               fmt::join(std::span(ids).first(std::min<size_t>(ids.size(), 40)), " "));
  }
  EXPECT_TRUE(reader.done());
  EXPECT_EQ(wrong, 0u) << "of " << strings.size() << " strings" << report;
}

TEST_P(TokenizerGolden, DecodesAnyIdsAsThePackage) {
  const auto tokenizer = open(name());
  Reader reader(kGoldens / (name() + ".decode.bin"));
  for (int i = 0; !reader.done(); ++i) {
    std::vector<int32_t> ids(reader.get<uint8_t>());
    for (auto& id : ids) id = reader.get<uint16_t>();
    for (const bool skip : {false, true}) {
      const auto expected = reader.get<uint16_t>();
      if (is_sentencepiece() && !skip) continue;  // that library always leaves control tokens out
      const std::string text = tokenizer->decode(ids, skip);
      EXPECT_EQ(folded(text), expected) << "ids " << fmt::format("{}", fmt::join(ids, " ")) << " gave "
                                        << fmt::format("{:?}", text) << " (skip " << skip << ")";
    }
  }
}

// Whether some run of byte-fallback tokens is not well-formed as a whole.
bool ill_formed_bytes(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  std::string run;
  for (int32_t id : ids) {
    if (tokenizer.id_to_token(id).starts_with("<0x")) {
      run += tokenizer.token_bytes(id);
    } else {
      if (!unicode::is_valid_utf8(run)) return true;
      run.clear();
    }
  }
  return !unicode::is_valid_utf8(run);
}

// What a stream needs: the bytes of the tokens, one after the other, are the text.
TEST_P(TokenizerGolden, BytesOfTokensAreTheText) {
  const auto tokenizer = open(name());
  const auto& strings = all_strings();
  size_t compared = 0;
  for (size_t i = 0; i < strings.size(); i += 5) {
    const auto ids = tokenizer->encode(strings[i], false);
    if (ids.size() > 5000) continue;
    std::string joined;
    for (size_t k = 0; k < ids.size(); ++k)
      joined += k == 0 ? tokenizer->first_token_bytes(ids[k]) : tokenizer->token_bytes(ids[k]);
    std::string storage;
    const std::string text = tokenizer->decode(ids, false);
    if (ill_formed_bytes(*tokenizer, ids)) continue;  // the one difference that tokenizer.h names
    ASSERT_EQ(unicode::replace_invalid_utf8(joined, storage), text)
        << "string " << i << " " << fmt::format("{:?}", strings[i].substr(0, 80));
    ++compared;
  }
  EXPECT_GT(compared, 4'000u);
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGolden,
                         testing::Values("gpt2", "llama3", "qwen2", "gpt4o", "deepseek", "falcon", "llama2", "mistral",
                                         "metaspace", "gemma", "spm_unigram", "spm_bpe", "unigram", "unigram_bytes",
                                         "affixes", "tiny"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace tinyserve
