#include "cli/load_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "cli/sse_reader.h"

namespace tinyserve::cli {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Target {
  std::string host, port, prefix;
};

Target parse_url(std::string url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) throw InputError(fmt::format("--url {}: must begin with http://", url));
  url.erase(0, kScheme.size());
  const size_t slash = std::min(url.find('/'), url.size());
  Target t;
  t.prefix = url.substr(slash);
  while (t.prefix.ends_with('/')) t.prefix.pop_back();
  if (t.prefix.ends_with("/v1")) t.prefix.resize(t.prefix.size() - 3);
  const std::string authority = url.substr(0, slash);
  const size_t colon = authority.rfind(':');
  const bool has_port = colon != std::string::npos && authority.find(']', colon) == std::string::npos;
  t.host = authority.substr(0, has_port ? colon : authority.size());
  t.port = has_port ? authority.substr(colon + 1) : "80";
  if (t.host.starts_with('[') && t.host.ends_with(']')) t.host = t.host.substr(1, t.host.size() - 2);
  if (t.host.empty() || t.port.empty()) throw InputError("--url: names no host or no port");
  return t;
}

/// What one streamed answer showed. Times in seconds of the steady clock.
struct Stream {
  double start = 0, end = 0;
  std::vector<double> pieces;  ///< arrival of each event that carries a choice
  int64_t tokens = -1;         ///< of usage
  std::string error;
};

class LoadRun {
 public:
  LoadRun(const LoadOptions& options, const std::function<void()>& on_done)
      : options_(options), on_done_(on_done), target_(parse_url(options.url)),
        extra_(parse_json(options.extra_body, "--extra-body")) {
    if (!extra_.is_object()) throw InputError("--extra-body: must be a JSON object");
    try {
      endpoints_ = tcp::resolver(context_).resolve(target_.host, target_.port);
    } catch (const boost::system::system_error& e) {
      throw InputError(fmt::format("--url {}: {}", options.url, e.code().message()));
    }
  }

  LoadResult run() {
    model_ = options_.model.empty() ? first_model() : options_.model;
    for (int32_t i = 0; i < options_.warmup; ++i) {
      asio::co_spawn(context_, request(-1 - i), asio::detached);
      drain();
      if (!streams_.back().error.empty()) throw InputError(fmt::format("--url {}: {}", options_.url, streams_.back().error));
    }
    streams_.clear();
    const double start = now_s();
    if (options_.request_rate > 0) {
      asio::co_spawn(context_, arrivals(), asio::detached);
    } else {
      for (int32_t i = 0; i < std::min(options_.concurrency, options_.requests); ++i)
        asio::co_spawn(context_, worker(), asio::detached);
    }
    drain();
    return result(now_s() - start);
  }

 private:
  void drain() {
    context_.run();
    context_.restart();
  }

  http::request<http::string_body> make_request(http::verb verb, const std::string& path, std::string body) const {
    http::request<http::string_body> r{verb, target_.prefix + path, 11};
    r.set(http::field::host, target_.host);
    r.set(http::field::connection, "close");
    if (!options_.api_key.empty()) r.set(http::field::authorization, "Bearer " + options_.api_key);
    if (!body.empty()) r.set(http::field::content_type, "application/json");
    r.body() = std::move(body);
    r.prepare_payload();
    return r;
  }

  std::string first_model() {
    try {
      beast::tcp_stream stream(context_);
      stream.connect(endpoints_);
      http::write(stream, make_request(http::verb::get, "/v1/models", {}));
      beast::flat_buffer buffer;
      http::response<http::string_body> response;
      http::read(stream, buffer, response);
      if (response.result() != http::status::ok)
        throw InputError(fmt::format("--url {}: /v1/models answered {}", options_.url, response.result_int()));
      return parse_json(response.body(), "the answer of /v1/models").at("data").at(0).at("id").get<std::string>();
    } catch (const boost::system::system_error& e) {
      throw InputError(fmt::format("--url {}: {}", options_.url, e.code().message()));
    } catch (const nlohmann::json::exception&) {
      throw InputError(fmt::format("--url {}: /v1/models names no model; name one with --served-model-name", options_.url));
    }
  }

  std::string body(int64_t index) const {
    std::mt19937_64 random(options_.seed * 1000003 + static_cast<uint64_t>(index));
    // The lowest ids are special tokens almost everywhere.
    std::uniform_int_distribution<int32_t> token(std::min(8, options_.vocab_size - 1), options_.vocab_size - 1);
    std::vector<int32_t> prompt(static_cast<size_t>(options_.input_len));
    for (int32_t& t : prompt) t = token(random);
    Json json = {{"model", model_},   {"prompt", prompt},     {"max_tokens", options_.output_len},
                 {"stream", true},    {"temperature", 0},     {"ignore_eos", true},
                 {"stream_options", {{"include_usage", true}}}};
    json.update(extra_);
    return json.dump();
  }

  asio::awaitable<void> worker() {
    while (next_ < options_.requests) co_await request(next_++);
  }

  asio::awaitable<void> arrivals() {
    std::mt19937_64 random(options_.seed);
    std::exponential_distribution<double> gap(options_.request_rate);
    asio::steady_timer timer(context_);
    auto due = std::chrono::steady_clock::now();
    for (; next_ < options_.requests; ++next_) {
      timer.expires_at(due);
      co_await timer.async_wait(asio::use_awaitable);
      asio::co_spawn(context_, request(next_), asio::detached);
      due += std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(gap(random)));
    }
  }

  asio::awaitable<void> request(int64_t index) {
    const auto message = make_request(http::verb::post, "/v1/completions", body(index));
    Stream s;
    s.start = now_s();
    try {
      co_await exchange(message, s);
    } catch (const boost::system::system_error& e) {
      s.error = e.code().message();
    } catch (const std::exception& e) {
      s.error = e.what();
    }
    if (s.error.empty() && s.pieces.empty()) s.error = "the answer held no text";
    s.end = now_s();
    streams_.push_back(std::move(s));
    if (index >= 0) on_done_();
  }

  asio::awaitable<void> exchange(const http::request<http::string_body>& message, Stream& s) {
    beast::tcp_stream stream(context_);
    stream.expires_after(std::chrono::seconds(options_.timeout_s));
    co_await stream.async_connect(endpoints_, asio::use_awaitable);
    stream.socket().set_option(tcp::no_delay(true));
    co_await http::async_write(stream, message, asio::use_awaitable);
    beast::flat_buffer buffer;
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    co_await http::async_read_header(stream, buffer, parser, asio::use_awaitable);
    const bool ok = parser.get().result() == http::status::ok;
    std::string error_body;
    SseReader events([&](std::string_view data) { on_event(data, s); });
    char piece[16384];
    while (!parser.is_done()) {
      parser.get().body().data = piece;
      parser.get().body().size = sizeof piece;
      beast::error_code error;
      co_await http::async_read_some(stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
      if (error && error != http::error::need_buffer) throw boost::system::system_error(error);
      const std::string_view text(piece, sizeof piece - parser.get().body().size);
      if (ok) {
        events.feed(text);
      } else if (error_body.size() < 1000) {
        error_body += text;
      }
    }
    if (!ok) s.error = fmt::format("HTTP {}: {}", parser.get().result_int(), error_body.substr(0, 300));
  }

  static void on_event(std::string_view data, Stream& s) {
    if (data == "[DONE]") return;
    const double now = now_s();
    const Json json = parse_json(data, "an event of the stream");
    if (const auto e = json.find("error"); e != json.end()) {
      s.error = e->dump();
      return;
    }
    if (const auto c = json.find("choices"); c != json.end() && !c->empty()) s.pieces.push_back(now);
    if (const auto u = json.find("usage"); u != json.end() && u->is_object()) s.tokens = u->value("completion_tokens", int64_t{-1});
  }

  LoadResult result(double wall_s) const {
    LoadResult r;
    r.wall_s = wall_s;
    std::vector<double> ttft, itl, tpot, e2e;
    for (const Stream& s : streams_) {
      if (!s.error.empty()) {
        if (r.failed++ == 0) r.first_error = s.error;
        continue;
      }
      ++r.completed;
      const int64_t tokens = s.tokens >= 0 ? s.tokens : static_cast<int64_t>(s.pieces.size());
      r.output_tokens += tokens;
      r.input_tokens += options_.input_len;
      ttft.push_back(s.pieces.front() - s.start);
      e2e.push_back(s.end - s.start);
      for (size_t i = 1; i < s.pieces.size(); ++i) itl.push_back(s.pieces[i] - s.pieces[i - 1]);
      if (tokens > 1) tpot.push_back((s.pieces.back() - s.pieces.front()) / static_cast<double>(tokens - 1));
    }
    r.ttft_s = summarize(std::move(ttft));
    r.itl_s = summarize(std::move(itl));
    r.tpot_s = summarize(std::move(tpot));
    r.e2e_s = summarize(std::move(e2e));
    return r;
  }

  const LoadOptions& options_;
  const std::function<void()>& on_done_;
  Target target_;
  Json extra_;
  asio::io_context context_{1};
  tcp::resolver::results_type endpoints_;
  std::string model_;
  int32_t next_ = 0;
  std::vector<Stream> streams_;
};

}  // namespace

LoadResult run_load(const LoadOptions& options, const std::function<void()>& on_done) {
  return LoadRun(options, on_done).run();
}

}  // namespace tinyserve::cli
