#include "replay/trace_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <numeric>
#include <thread>
#include <vector>

#include "base/error.h"
#include "replay/trace.h"

namespace tinyserve::replay {
namespace {

using testing::ElementsAreArray;
using testing::HasSubstr;

class TraceWriterTest : public testing::Test {
 protected:
  TraceWriterTest() : path_(testing::TempDir() + "recorded_" + std::to_string(::getpid()) + ".trace") {
    std::filesystem::remove(path_);
  }
  ~TraceWriterTest() override { std::filesystem::remove(path_); }
  std::string text() const {
    std::ifstream in(path_);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static std::vector<int32_t> tokens(int32_t first, int32_t count) {
    std::vector<int32_t> out(static_cast<size_t>(count));
    std::iota(out.begin(), out.end(), first);
    return out;
  }
  static std::vector<uint64_t> names(const Trace& trace, size_t request) {
    const auto span = trace.names_of(trace.requests[request]);
    return {span.begin(), span.end()};
  }

  std::string path_;
};

TEST_F(TraceWriterTest, ReadsBack) {
  {
    TraceWriter writer(path_, 16);
    const auto a = writer.begin(tokens(0, 40), 100, "");
    a->accepted();
    const auto refused = writer.begin(tokens(0, 40), 100, "");  // never accepted
    a->add(tokens(40, 1));
    a->add(tokens(41, 30));
    a->end(false);
    const auto b = writer.begin(tokens(0, 71), 0, "");
    b->end(true);  // before the writer hears that it was accepted
    b->accepted();
    writer.begin(tokens(0, 5), 0, "")->accepted();  // never ends
  }
  const Trace trace = load_trace(path_);
  EXPECT_EQ(trace.format, "tinyserve");
  EXPECT_EQ(trace.tokens_per_name, 16);
  EXPECT_EQ(trace.unfinished, 1);
  ASSERT_EQ(trace.requests.size(), 2u);
  const TraceRequest &a = trace.requests[0], &b = trace.requests[1];
  EXPECT_EQ(a.prompt, 40);
  EXPECT_EQ(a.answer, 31);
  EXPECT_EQ(a.max_tokens, 100);
  EXPECT_EQ(a.cancel_s, -1);
  EXPECT_EQ(b.max_tokens, 0);
  EXPECT_GE(b.cancel_s, 0);
  // The second prompt is what the first one became, answer included: the same pages, whoever filled them.
  EXPECT_EQ(a.num_names, 4u);
  EXPECT_THAT(names(trace, 1), ElementsAreArray(names(trace, 0)));
}

TEST_F(TraceWriterTest, EqualPagesAfterOthersDiffer) {
  {
    TraceWriter writer(path_, 4);
    for (const int32_t first : {1, 2}) {
      std::vector<int32_t> prompt = {first, 0, 0, 0, 7, 7, 7, 7};
      const auto r = writer.begin(prompt, 0, "");
      r->accepted();
      r->end(false);
    }
  }
  const Trace trace = load_trace(path_);
  EXPECT_NE(names(trace, 0)[1], names(trace, 1)[1]);
}

TEST_F(TraceWriterTest, SaltsShareNothing) {
  {
    TraceWriter writer(path_, 16);
    for (const char* salt : {"", "tenant-secret-a", "tenant-secret-b", "tenant-secret-a"}) {
      const auto r = writer.begin(tokens(0, 32), 0, salt);
      r->accepted();
      r->end(false);
    }
  }
  const Trace trace = load_trace(path_);
  EXPECT_EQ(trace.requests[0].salt, 0u);
  EXPECT_NE(trace.requests[1].salt, trace.requests[2].salt);
  EXPECT_EQ(trace.requests[1].salt, trace.requests[3].salt);
  EXPECT_EQ(names(trace, 1), names(trace, 3));
  EXPECT_NE(names(trace, 1)[0], names(trace, 2)[0]);
  EXPECT_NE(names(trace, 1)[0], names(trace, 0)[0]);
  EXPECT_THAT(text(), testing::Not(HasSubstr("tenant")));
}

TEST_F(TraceWriterTest, EachRecordingHasItsOwnKey) {
  std::vector<uint64_t> seen;
  for (int i = 0; i < 2; ++i) {
    std::filesystem::remove(path_);
    {
      TraceWriter writer(path_, 16);
      const auto r = writer.begin(tokens(0, 16), 0, "");
      r->accepted();
      r->end(false);
    }
    seen.push_back(names(load_trace(path_), 0)[0]);
  }
  EXPECT_NE(seen[0], seen[1]);
}

TEST_F(TraceWriterTest, OnlyTheUserReadsIt) {
  { TraceWriter writer(path_, 16); }
  struct stat status;
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(TraceWriterTest, IsNotAddedTo) {
  { TraceWriter writer(path_, 16); }
  const std::string before = text();
  EXPECT_THROW(TraceWriter(path_, 16), InputError);
  EXPECT_EQ(text(), before);
  EXPECT_THROW(TraceWriter("/nowhere/at/all", 16), InputError);
}

TEST_F(TraceWriterTest, LinksAreNotFollowed) {
  const std::string link = path_ + ".link";
  std::filesystem::remove(link);
  std::filesystem::create_symlink(path_, link);
  EXPECT_THROW(TraceWriter(link, 16), InputError);
  EXPECT_FALSE(std::filesystem::exists(path_));
  std::filesystem::remove(link);
}

TEST_F(TraceWriterTest, AFullDiskEndsTheRecordingOnly) {
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;  // bytes of any file: write() fails beyond
  setrlimit(RLIMIT_FSIZE, &small);
  {
    TraceWriter writer(path_, 16);
    for (int i = 0; i < 100; ++i) {
      const auto r = writer.begin(tokens(0, 160), 0, "");
      r->accepted();
      r->end(false);
    }
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(text().size(), 1000u);
  // What is there can be read, up to the line that was torn.
  const Trace trace = load_trace(path_);
  EXPECT_GT(trace.requests.size(), 1u);
  EXPECT_LT(trace.requests.size(), 100u);
}

TEST_F(TraceWriterTest, ManyThreads) {
  {
    TraceWriter writer(path_, 16);
    std::vector<std::jthread> threads;
    for (int32_t t = 0; t < 8; ++t)
      threads.emplace_back([&, t] {
        for (int32_t i = 0; i < 100; ++i) {
          const auto r = writer.begin(tokens(t, 50), 10, "");
          std::jthread engine([r] {
            r->add(std::vector<int32_t>(20, 1));
            r->end(false);
          });
          r->accepted();
        }
      });
  }
  const Trace trace = load_trace(path_);  // which refuses times that go backwards, ids used twice and ends without beginning
  EXPECT_EQ(trace.requests.size(), 800u);
  for (const TraceRequest& r : trace.requests) EXPECT_EQ(r.answer, 20);
}

TEST_F(TraceWriterTest, RecordingsMayOutliveTheWriter) {
  std::shared_ptr<TraceWriter::Recording> r;
  {
    TraceWriter writer(path_, 16);
    r = writer.begin(tokens(0, 16), 0, "");
    r->accepted();
  }
  r->add(tokens(0, 16));
  r->end(false);
  EXPECT_THROW(load_trace(path_), InputError);  // it has no whole request
}

}  // namespace
}  // namespace tinyserve::replay
