#include "cli/sse_reader.h"

#include <gtest/gtest.h>

#include <vector>

namespace tinyserve::cli {
namespace {

TEST(SseReader, SameEventsHoweverTheStreamIsCut) {
  const std::string stream = ": hello\r\n\r\ndata: {\"a\":1}\n\nevent: x\ndata:two\ndata: lines\n\n\n\ndata: [DONE]\r\n\r\ndata: cut";
  const std::vector<std::string> expected = {"{\"a\":1}", "two\nlines", "[DONE]"};
  for (size_t step = 1; step <= stream.size(); ++step) {
    std::vector<std::string> got;
    SseReader reader([&](std::string_view data) { got.emplace_back(data); });
    for (size_t i = 0; i < stream.size(); i += step) reader.feed(std::string_view(stream).substr(i, step));
    EXPECT_EQ(got, expected) << "pieces of " << step;
  }
}

}  // namespace
}  // namespace tinyserve::cli
