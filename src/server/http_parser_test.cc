#include "server/http_parser.h"

#include <gmock/gmock.h>

namespace tinyserve {
namespace {

using Event = HttpParser::Event;
using ::testing::HasSubstr;

/// Feeds `text` in pieces of `step` bytes, as a connection would; returns the last event.
Event feed(HttpParser& parser, std::string_view text, size_t step, std::string* rest = nullptr) {
  std::string in;
  Event event = Event::kNeedMore;
  for (size_t at = 0; at < text.size(); at += step) {
    in += text.substr(at, step);
    while (!in.empty()) {
      size_t taken = 0;
      event = parser.put(in, taken);
      in.erase(0, taken);
      if (event == Event::kError || event == Event::kDone || (event == Event::kHeader && parser.done())) {
        if (rest) *rest = in + std::string(text.substr(std::min(at + step, text.size())));
        return event;
      }
      if (event == Event::kNeedMore) break;
    }
  }
  return event;
}

TEST(HttpParser, WholeAndInPieces) {
  const std::string text =
      "POST /v1/completions?x=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer k\r\nContent-Length: 5\r\n\r\nhelloGET / "
      "HTTP/1.1\r\n";
  for (const size_t step : {size_t{1}, size_t{2}, size_t{7}, text.size()}) {
    HttpParser parser(1000, 1000);
    std::string rest;
    ASSERT_EQ(feed(parser, text, step, &rest), Event::kDone);
    EXPECT_EQ(rest, "GET / HTTP/1.1\r\n");
    const HttpRequest head = parser.head();
    EXPECT_EQ(head.method, "POST");
    EXPECT_EQ(head.path, "/v1/completions");
    EXPECT_EQ(head.authorization, "Bearer k");
    EXPECT_TRUE(head.has_body && parser.keep_alive() && !parser.http_1_0());
    EXPECT_EQ(parser.take_body(), "hello");
  }
}

TEST(HttpParser, ChunkedBodies) {
  const std::string text =
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n6\r\n "
      "world\r\n0\r\nTrailer: x\r\n\r\n";
  for (const size_t step : {size_t{1}, size_t{3}, text.size()}) {
    HttpParser parser(1000, 1000);
    ASSERT_EQ(feed(parser, text, step), Event::kDone) << step << parser.error_message();
    EXPECT_EQ(parser.take_body(), "hello world");
  }
}

TEST(HttpParser, WhatIsNoRequest) {
  const char* kBad[] = {
      "\x16\x03\x01\x02garbage",           // TLS
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",  // HTTP/2
      "GET\r\n\r\n",
      "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
      "GET / HTTP/1.1\r\n\r\n",  // no Host
      "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",  // smuggling
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nhello",
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello",
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello",
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nhello",
      "GET / HTTP/1.1\r\nHost: a\r\nBad Field: x\r\n\r\n",
      "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
  };
  for (const char* bad : kBad)
    for (const size_t step : {size_t{1}, size_t{10000}}) {
      HttpParser parser(1000, 1000);
      EXPECT_EQ(feed(parser, bad, step), Event::kError) << bad;
      EXPECT_EQ(parser.error_status(), 400) << bad;
    }
  HttpParser parser(1000, 1000);
  EXPECT_EQ(feed(parser, std::string_view("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 29), 100), Event::kError);
}

TEST(HttpParser, Limits) {
  HttpParser header(1000, 1000);
  EXPECT_EQ(feed(header, "GET / HTTP/1.1\r\nX: " + std::string(2000, 'x'), 10), Event::kError);
  EXPECT_EQ(header.error_status(), 431);
  HttpParser fields(1000, 1000);
  std::string many = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 500; ++i) many += "a: b\r\n";
  EXPECT_EQ(feed(fields, many, 10), Event::kError);
  EXPECT_EQ(fields.error_status(), 431);
  HttpParser body(1000, 1000);
  EXPECT_EQ(feed(body, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 100), Event::kError);
  EXPECT_EQ(body.error_status(), 413);
  HttpParser chunks(1000, 1000);
  std::string chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 300; ++i) chunked += "4\r\nabcd\r\n";
  EXPECT_EQ(feed(chunks, chunked, 50), Event::kError);
  EXPECT_EQ(chunks.error_status(), 413);
  HttpParser extension(1000, 1000);
  EXPECT_EQ(feed(extension,
                 "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;" + std::string(100000, 'x'), 50),
            Event::kError);
}

TEST(HttpParser, AnAnnouncedLengthReservesNothing) {
  HttpParser parser(1000, size_t{1} << 40);
  EXPECT_EQ(feed(parser, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\nab", 1000),
            Event::kNeedMore);
  EXPECT_LT(parser.take_body().capacity(), 100u);
}

TEST(HttpParser, KeepAliveAndTargets) {
  HttpParser old(1000, 1000);
  feed(old, "GET http://host:80/v1/models HTTP/1.0\r\n\r\n", 100);
  EXPECT_TRUE(old.http_1_0() && !old.keep_alive());
  EXPECT_EQ(old.head().path, "/v1/models");
  HttpParser kept(1000, 1000);
  feed(kept, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 100);
  EXPECT_TRUE(kept.keep_alive());
  HttpParser closing(1000, 1000);
  feed(closing, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
       100);
  EXPECT_TRUE(!closing.keep_alive() && closing.expects_continue());
}

}  // namespace
}  // namespace tinyserve
