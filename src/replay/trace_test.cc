#include "replay/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "replay/line_reader.h"

namespace tinyserve::replay {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Trace parse(const std::string& text, int64_t max_requests = 0) {
  LineReader lines(open_bytes(text), "trace");
  return parse_trace(lines, max_requests);
}

std::string error_of(const std::string& text) {
  try {
    parse(text);
  } catch (const InputError& e) {
    return e.what();
  }
  return "no error";
}

constexpr const char* kHeader = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
constexpr const char* kRecorded = "{\"format\":\"tinyserve-trace\",\"version\":1,\"page_size\":16}\n";

std::string mooncake(const std::string& timestamp, const std::string& input, const std::string& output, const std::string& ids) {
  return "{\"timestamp\": " + timestamp + ", \"input_length\": " + input + ", \"output_length\": " + output + ", \"hash_ids\": " + ids + "}\n";
}

TEST(LineReader, EndsOfLines) {
  LineReader lines(open_bytes("a\r\n\nlast"), "x");
  std::string_view line;
  std::vector<std::string> all;
  while (lines.next(line)) all.emplace_back(line);
  EXPECT_THAT(all, ElementsAre("a", "", "last"));
}

TEST(LineReader, LinesLongerThanItsBuffer) {
  const std::string first(200'000, 'a'), second(300'000, 'b');
  const std::string both = first + "\n" + second + "\n";
  LineReader lines(open_bytes(both), "x");
  std::string_view line;
  ASSERT_TRUE(lines.next(line));
  EXPECT_EQ(line, first);
  ASSERT_TRUE(lines.next(line));
  EXPECT_EQ(line, second);
  EXPECT_FALSE(lines.next(line));
}

/// As long as anybody asks for.
class Endless final : public ByteSource {
 public:
  size_t read(char* out, size_t size) override {
    std::fill_n(out, size, 'x');
    given += size;
    return size;
  }
  size_t given = 0;
};

TEST(LineReader, AnEndlessLineIsRefusedEarly) {
  auto source = std::make_unique<Endless>();
  const Endless* endless = source.get();
  LineReader lines(std::move(source), "big.jsonl");
  std::string_view line;
  try {
    lines.next(line);
    FAIL() << "no error";
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), HasSubstr("big.jsonl:1: the line is longer than 8 MiB"));
  }
  EXPECT_LE(endless->given, 2 * LineReader::kMaxLineBytes);
}

TEST(LineReader, ReadsGzip) {
  const std::string path = testing::TempDir() + "lines_" + std::to_string(::getpid()) + ".gz";
  gzFile out = gzopen(path.c_str(), "wb");
  gzputs(out, "one\ntwo\n");
  gzclose(out);
  LineReader lines(open_file(path), path);
  std::string_view line;
  ASSERT_TRUE(lines.next(line));
  EXPECT_EQ(line, "one");
  ASSERT_TRUE(lines.next(line));
  EXPECT_EQ(line, "two");
  EXPECT_FALSE(lines.next(line));
  std::filesystem::remove(path);
}

TEST(LineReader, ATruncatedGzipIsAnError) {
  const std::string path = testing::TempDir() + "cut_" + std::to_string(::getpid()) + ".gz";
  gzFile out = gzopen(path.c_str(), "wb");
  for (int i = 0; i < 10000; ++i) gzprintf(out, "line %d of many\n", i * 7919);
  gzclose(out);
  std::ifstream in(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  std::ofstream(path, std::ios::binary) << bytes.substr(0, bytes.size() / 2);
  LineReader lines(open_file(path), path);
  EXPECT_THROW({ for (std::string_view line; lines.next(line);) {} }, InputError);
  std::filesystem::remove(path);
}

TEST(LineReader, MissingFilesAndFoldersAreNamed) {
  EXPECT_THROW(open_file("/nowhere/at/all"), InputError);
  EXPECT_THROW(open_file(testing::TempDir()), InputError);
}

TEST(Mooncake, Reads) {
  const Trace trace = parse(mooncake("0", "600", "5", "[1, 2]") + "\n" + mooncake("1500", "512", "0", "[1]"));
  EXPECT_EQ(trace.format, "mooncake");
  EXPECT_EQ(trace.tokens_per_name, 512);
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[1].arrival_s, 1.5);
  EXPECT_EQ(trace.requests[1].answer, 0);
  EXPECT_THAT(trace.names_of(trace.requests[0]), ElementsAre(1, 2));
  EXPECT_THAT(trace.names_of(trace.requests[1]), ElementsAre(1));
  EXPECT_EQ(trace.prompt_tokens(), 1112);
}

TEST(Mooncake, StopsWhereAsked) { EXPECT_EQ(parse(mooncake("0", "1", "1", "[1]") + "nonsense", 1).requests.size(), 1u); }

TEST(Mooncake, TheExcerpt) {
  const Trace trace = load_trace(TINYSERVE_SOURCE_DIR "/tests/data/traces/mooncake-excerpt.jsonl");
  EXPECT_EQ(trace.requests.size(), 300u);
  EXPECT_EQ(trace.requests.front().prompt, 6758);
}

TEST(Mooncake, TheWholeTrace) {
  const Trace trace = load_trace(TINYSERVE_SOURCE_DIR "/bench/data/mooncake-conversation.jsonl.gz");
  EXPECT_EQ(trace.requests.size(), 12031u);
  EXPECT_EQ(trace.prompt_tokens(), 144793823);
  EXPECT_EQ(trace.answer_tokens(), 4122048);
}

struct BadTrace {
  const char* name;
  std::string text;
  const char* message;
};
void PrintTo(const BadTrace& bad, std::ostream* out) { *out << bad.name; }

class BadTraces : public testing::TestWithParam<BadTrace> {};

TEST_P(BadTraces, AreRefusedWithTheLine) { EXPECT_THAT(error_of(GetParam().text), HasSubstr(GetParam().message)); }

const std::string kGood = mooncake("5", "600", "5", "[1, 2]");
INSTANTIATE_TEST_SUITE_P(
    Replay, BadTraces,
    testing::Values(
        BadTrace{"empty", "", "the trace is empty"}, BadTrace{"blank", "\n \n\n", "the trace is empty"},
        BadTrace{"something_else", "hello\n", "trace:1: this is no trace"},
        BadTrace{"truncated", kGood + "{\"timestamp\": 7, \"input_le", "trace:2: the line"},
        BadTrace{"no_object", kGood + "[1]\n", "trace:2: the line must be a JSON object"},
        BadTrace{"invalid_utf8", kGood + "{\"timestamp\": 7, \"x\": \"\xff\xfe\"}\n", "ill-formed UTF-8 byte"},
        BadTrace{"too_deep", kGood + "{\"hash_ids\": [[[[[[1]]]]]]}\n", "trace:2: "},
        BadTrace{"missing", "{\"timestamp\": 1, \"input_length\": 5}\n", "trace:1: \"output_length\" is missing"},
        BadTrace{"negative_length", mooncake("0", "-5", "1", "[]"), "\"input_length\" must be a whole number from 1 to"},
        BadTrace{"no_prompt", mooncake("0", "0", "1", "[]"), "\"input_length\" must be"},
        BadTrace{"huge_length", mooncake("0", "4000000000", "1", "[1]"), "\"input_length\" must be"},
        BadTrace{"beyond_64_bits", mooncake("0", "18446744073709551615", "1", "[1]"), "\"input_length\" must be"},
        BadTrace{"a_fraction", mooncake("0", "5.5", "1", "[1]"), "\"input_length\" must be"},
        BadTrace{"huge_answer", mooncake("0", "5", "1e9", "[1]"), "\"output_length\" must be"},
        BadTrace{"wrong_ids", mooncake("0", "600", "1", "[1]"), "600 tokens are 2 blocks of 512"},
        BadTrace{"negative_id", mooncake("0", "6", "1", "[-1]"), "\"hash_ids\" must be whole numbers"},
        BadTrace{"ids_no_array", mooncake("0", "6", "1", "7"), "\"hash_ids\" must be an array"},
        BadTrace{"negative_time", mooncake("-1", "6", "1", "[1]"), "the time must be from 0"},
        BadTrace{"huge_time", mooncake("1e300", "6", "1", "[1]"), "the time must be from 0"},
        BadTrace{"time_is_text", mooncake("\"1\"", "6", "1", "[1]"), "\"timestamp\" must be a number"},
        BadTrace{"time_backwards", kGood + mooncake("4", "6", "1", "[1]"), "trace:2: time goes backwards"},
        BadTrace{"azure_header", "TIMESTAMP,Context\n", "the first line must be"},
        BadTrace{"azure_no_requests", kHeader, "the trace has no request"},
        BadTrace{"azure_time", std::string(kHeader) + "yesterday,5,6\n", "trace:2: the line must begin with a time"},
        BadTrace{"azure_no_such_day", std::string(kHeader) + "2023-02-30 00:00:00,5,6\n", "trace:2: the line must begin with a time"},
        BadTrace{"azure_two_fields", std::string(kHeader) + "2023-11-16 18:15:46.68,5\n", "trace:2: after the time"},
        BadTrace{"azure_more_fields", std::string(kHeader) + "2023-11-16 18:15:46.68,5,6,7\n", "trace:2: after the time"},
        BadTrace{"azure_negative", std::string(kHeader) + "2023-11-16 18:15:46.68,5,-6\n", "trace:2: after the time"},
        BadTrace{"azure_overflow", std::string(kHeader) + "2023-11-16 18:15:46.68,5,99999999999999999999\n", "trace:2: after the time"},
        BadTrace{"azure_huge", std::string(kHeader) + "2023-11-16 18:15:46.68,99999999999,6\n", "the prompt's length must be from 1 to"},
        BadTrace{"azure_backwards", std::string(kHeader) + "2023-11-16 18:15:46.68,5,6\n2023-11-16 18:15:46.67,5,6\n", "trace:3: time goes backwards"},
        BadTrace{"recorded_format", "{\"format\":\"other\"}\n", "must be \"tinyserve-trace\""},
        BadTrace{"recorded_version", "{\"format\":\"tinyserve-trace\",\"version\":2,\"page_size\":16}\n", "version of the format"},
        BadTrace{"recorded_page_size", "{\"format\":\"tinyserve-trace\",\"version\":1,\"page_size\":0}\n", "\"page_size\" must be"},
        BadTrace{"recorded_twice", std::string(kRecorded) + "{\"t\":1,\"id\":1,\"prompt\":3}\n{\"t\":1,\"id\":1,\"prompt\":3}\n", "trace:3: request 1 begins twice"},
        BadTrace{"recorded_end", std::string(kRecorded) + "{\"t\":1,\"id\":1,\"answer\":3}\n", "trace:2: request 1 ends, but did not begin"},
        BadTrace{"recorded_backwards", std::string(kRecorded) + "{\"t\":1,\"id\":1,\"prompt\":3}\n{\"t\":0.5,\"id\":1,\"answer\":3}\n", "trace:3: time goes backwards"},
        BadTrace{"recorded_pages", std::string(kRecorded) + "{\"t\":1,\"id\":1,\"prompt\":3,\"pages\":[\"0123456789abcdef\"]}\n", "more than the 0 full pages"},
        BadTrace{"recorded_name", std::string(kRecorded) + "{\"t\":1,\"id\":1,\"prompt\":16,\"pages\":[\"0123\"]}\n", "16 hexadecimal digits"},
        BadTrace{"recorded_cancel", std::string(kRecorded) + "{\"t\":1,\"id\":1,\"prompt\":16}\n{\"t\":1,\"id\":1,\"answer\":0,\"cancel\":1}\n", "\"cancel\" must be"}),
    [](const auto& info) { return info.param.name; });

TEST(Azure, Reads) {
  const Trace trace = parse(std::string(kHeader) + "2023-12-31 23:59:59.7500000,374,44\r\n2024-01-01 00:00:01.2500000+00:00,10,0");
  EXPECT_EQ(trace.format, "azure");
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[0].arrival_s, 0);
  EXPECT_NEAR(trace.requests[1].arrival_s, 1.5, 1e-9);
  EXPECT_EQ(trace.requests[0].prompt, 374);
  EXPECT_EQ(trace.requests[0].answer, 44);
  EXPECT_TRUE(trace.names.empty());
}

TEST(Azure, TheWholeTraces) {
  EXPECT_EQ(load_trace(TINYSERVE_SOURCE_DIR "/bench/data/azure-2023-conv.csv.gz").requests.size(), 19366u);
  EXPECT_EQ(load_trace(TINYSERVE_SOURCE_DIR "/bench/data/azure-2023-code.csv.gz").requests.size(), 8819u);
  EXPECT_EQ(load_trace(TINYSERVE_SOURCE_DIR "/tests/data/traces/azure-excerpt.csv").requests.size(), 500u);
}

TEST(Recorded, JoinsBeginningAndEnd) {
  const Trace trace = parse(std::string(kRecorded) +
                            "{\"t\":0.5,\"id\":7,\"prompt\":20,\"max_tokens\":50,\"pages\":[\"00000000000000aa\"],\"salt\":\"00000000000000ff\"}\n"
                            "{\"t\":0.75,\"id\":8,\"prompt\":3}\n"
                            "{\"t\":1,\"id\":9,\"prompt\":4}\n"
                            "{\"t\":2,\"id\":8,\"answer\":0,\"cancel\":true}\n"
                            "{\"t\":3,\"id\":7,\"answer\":12,\"pages\":[\"00000000000000bb\"]}\n");
  EXPECT_EQ(trace.format, "tinyserve");
  EXPECT_EQ(trace.unfinished, 1);  // 9
  ASSERT_EQ(trace.requests.size(), 2u);
  const TraceRequest &a = trace.requests[0], &b = trace.requests[1];
  EXPECT_EQ(a.prompt, 20);
  EXPECT_EQ(a.answer, 12);
  EXPECT_EQ(a.max_tokens, 50);
  EXPECT_EQ(a.salt, 0xffu);
  EXPECT_EQ(a.cancel_s, -1);
  EXPECT_THAT(trace.names_of(a), ElementsAre(0xaa, 0xbb));
  EXPECT_EQ(b.cancel_s, 1.25);
  EXPECT_EQ(b.num_names, 0u);
}

TEST(Recorded, ATornLastLineIsLeftOut) {
  const std::string whole = std::string(kRecorded) + "{\"t\":1,\"id\":1,\"prompt\":3}\n{\"t\":2,\"id\":1,\"answer\":3}\n";
  EXPECT_EQ(parse(whole + "{\"t\":3,\"id\":2,\"pro").requests.size(), 1u);
  EXPECT_THAT(error_of(whole + "{\"t\":3,\"id\":2,\"pro\n"), HasSubstr("trace:4: "));
}

}  // namespace
}  // namespace tinyserve::replay
