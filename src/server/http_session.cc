#include "server/http_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>

#include "base/log.h"

namespace tinyserve {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr size_t kMaxPipelinedBytes = size_t{64} << 10;  // read ahead while a request runs
constexpr int kReadsPerWake = 16;                        // so that one fast sender does not keep the thread
constexpr double kLingerSeconds = 2;
constexpr double kSlowestClientBytesPerS = 16 << 10;  // after an answer is complete

const char* reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Status";
  }
}

}  // namespace

// The handler's end of one request. It may outlive the connection; then it does nothing.
class HttpSession::Exchange : public HttpExchange {
 public:
  explicit Exchange(std::weak_ptr<HttpSession> session) : session_(std::move(session)) {}

  void respond(HttpResponse response) override {
    with_session([&](HttpSession& s) {
      s.write_response(response);
      s.end_exchange();
    });
  }

  void start_stream(std::string_view content_type) override {
    with_session([&](HttpSession& s) {
      s.streaming_ = true;
      s.status_ = 200;
      if (s.http_1_0_) s.keep_alive_ = false;  // no chunks there: the end of the connection is the end of the answer
      s.out_ += fmt::format("HTTP/1.1 200 OK\r\nContent-Type: {}\r\nCache-Control: no-cache\r\n{}{}\r\n", content_type,
                            s.http_1_0_ ? "" : "Transfer-Encoding: chunked\r\n",
                            s.keep_alive_ ? "" : "Connection: close\r\n");
    });
  }

  bool streaming() const override {
    const auto session = session_.lock();
    return session && session->exchange_.get() == this && session->streaming_;
  }

  void send(std::string_view bytes) override {
    if (bytes.empty()) return;
    with_session([&](HttpSession& s) {
      if (s.head_only_) return;
      if (s.http_1_0_)
        s.out_ += bytes;
      else
        s.out_ += fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
      s.flush();
      if (s.out_.size() - s.sent_ > s.host_.config.max_stream_buffer_bytes) {
        log_debug("a client does not read its stream; closing");
        s.close();
      }
    });
  }

  void end_stream(bool clean) override {
    with_session([&](HttpSession& s) {
      if (!s.http_1_0_ && clean) s.out_ += "0\r\n\r\n";
      if (!clean) s.keep_alive_ = false;
      s.end_exchange();
    });
  }

  void on_gone(std::function<void(Gone)> callback) override {
    const auto session = session_.lock();
    if (!session || session->exchange_.get() != this) return callback(Gone::kClient);
    gone_ = std::move(callback);
  }

  void tell_gone(Gone reason) {
    if (auto callback = std::exchange(gone_, nullptr)) callback(reason);
  }

 private:
  template <class Fn>
  void with_session(Fn&& fn) {
    const auto session = session_.lock();
    if (session && session->exchange_.get() == this) session->guarded([&] { fn(*session); });
  }

  std::weak_ptr<HttpSession> session_;
  std::function<void(Gone)> gone_;
};

HttpSession::HttpSession(asio::ip::tcp::socket socket, SessionHost& host)
    : socket_(std::move(socket)), host_(host), timer_(socket_.get_executor()) {}

HttpSession::~HttpSession() = default;

template <class Fn>
void HttpSession::guarded(Fn&& fn) {
  try {
    fn();
  } catch (const std::exception& e) {
    log_error(fmt::format("a connection failed: {}", e.what()));
    close();
  }
}

void HttpSession::start() {
  error_code ec;
  socket_.non_blocking(true, ec);
  socket_.set_option(asio::ip::tcp::no_delay(true), ec);
  enter(State::kIdle, host_.config.header_timeout_s);
  arm_read();
}

// ---------------------------------------------------------------------------------------------------- reading

bool HttpSession::reads_wanted() const {
  if (input_ended_ || state_ == State::kClosed) return false;
  // While a request runs, reading goes on only to notice that the client hung up, and takes little of what it
  // pipelines.
  if (state_ == State::kBusy || state_ == State::kFlushing) return in_.size() < kMaxPipelinedBytes;
  return true;
}

void HttpSession::arm_read() {
  if (read_armed_ || !reads_wanted()) return;
  read_armed_ = true;
  // Waiting for readiness instead of reading into a buffer keeps an idle connection at about a kilobyte.
  socket_.async_wait(asio::ip::tcp::socket::wait_read, [self = shared_from_this()](const error_code& ec) {
    self->read_armed_ = false;
    if (ec || self->state_ == State::kClosed) return;
    self->guarded([&] { self->on_readable(); });
  });
}

void HttpSession::on_readable() {
  for (int i = 0; i < kReadsPerWake && reads_wanted(); ++i) {
    error_code ec;
    const size_t n = socket_.read_some(asio::buffer(host_.scratch), ec);
    if (ec == asio::error::would_block || ec == asio::error::try_again) break;
    if (ec == asio::error::eof) return on_end_of_input();
    if (ec) return close();
    if (state_ == State::kLinger) {
      lingered_ += n;
      if (lingered_ > host_.config.max_body_bytes) return close();
      continue;
    }
    in_.append(host_.scratch.data(), n);
    parse();
  }
  arm_read();
}

void HttpSession::on_end_of_input() {
  // A client that waits for an answer and closes its side has hung up. One that already has its answer may only be done
  // sending.
  if (state_ == State::kFlushing) {
    input_ended_ = true;
    return;
  }
  close();
}

void HttpSession::parse() {
  if (parsing_) return;  // an answer given during dispatch() comes back here through on_flushed()
  parsing_ = true;
  while (!in_.empty() && (state_ == State::kIdle || state_ == State::kHeader || state_ == State::kBody)) {
    if (state_ == State::kIdle) {
      in_.erase(0, std::min(in_.find_first_not_of("\r\n"), in_.size()));  // RFC 9112, 2.2
      if (in_.empty()) break;
      parser_ = std::make_unique<HttpParser>(host_.config.max_header_bytes, host_.config.max_body_bytes);
      keep_alive_ = head_only_ = http_1_0_ = false;
      path_.clear();
      enter(State::kHeader, host_.config.header_timeout_s);
    }
    size_t taken = 0;
    const HttpParser::Event event = parser_->put(in_, taken);
    in_.erase(0, taken);
    if (event == HttpParser::Event::kError) {
      refuse(host_.handler.error(parser_->error_status(), parser_->error_message()), false);
    } else if (event == HttpParser::Event::kHeader) {
      on_header();
    } else if (event == HttpParser::Event::kNeedMore) {
      if (state_ != State::kBody) break;
      charge_body(parser_->body_bytes());
      if (host_.body_bytes > host_.config.max_total_body_bytes)
        refuse(host_.handler.error(503, "The server is reading too many large requests; try again later."), false);
      else
        break;
    } else {
      dispatch();
    }
  }
  parsing_ = false;
}

void HttpSession::charge_body(size_t bytes) {
  host_.body_bytes += bytes - charged_;  // may shrink
  charged_ = bytes;
}

void HttpSession::on_header() {
  HttpRequest head = parser_->head();
  path_ = head.path;
  head_only_ = head.method == "HEAD";
  http_1_0_ = parser_->http_1_0();
  keep_alive_ = parser_->keep_alive();
  if (auto response = host_.handler.refuse(head)) return refuse(std::move(*response), !head.has_body);
  enter(State::kBody, host_.config.body_timeout_s);
  if (parser_->done()) return dispatch();
  if (parser_->expects_continue() && in_.empty() && !http_1_0_) {
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    flush();
  }
}

void HttpSession::dispatch() {
  HttpRequest request = parser_->head();
  charge_body(parser_->body_bytes());
  request.body = parser_->take_body();
  parser_.reset();
  ++requests_;
  ++host_.busy;
  counted_busy_ = true;
  streaming_ = false;
  enter(State::kBusy, host_.config.request_timeout_s);
  exchange_ = std::make_shared<Exchange>(weak_from_this());
  host_.handler.handle(std::move(request), exchange_);
}

void HttpSession::refuse(HttpResponse response, bool readable) {
  parser_.reset();
  if (!readable) keep_alive_ = false;
  if (!counted_busy_) {
    ++host_.busy;
    counted_busy_ = true;
  }
  ++requests_;
  write_response(response);
  end_exchange();
}

// ---------------------------------------------------------------------------------------------------- writing

void HttpSession::write_response(const HttpResponse& response) {
  status_ = response.status;
  if (host_.draining) keep_alive_ = false;
  out_ += fmt::format("HTTP/1.1 {} {}\r\n", response.status, reason_phrase(response.status));
  if (response.status != 204)
    out_ += fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n", response.content_type, response.body.size());
  for (const auto& [name, value] : response.headers) out_ += fmt::format("{}: {}\r\n", name, value);
  if (!keep_alive_)
    out_ += "Connection: close\r\n";
  else if (http_1_0_)
    out_ += "Connection: keep-alive\r\n";
  out_ += "\r\n";
  if (!head_only_) out_ += response.body;
}

void HttpSession::end_exchange() {
  exchange_.reset();
  charge_body(0);
  if (host_.draining) keep_alive_ = false;
  host_.handler.answered(path_, status_);
  enter(State::kFlushing, host_.config.write_timeout_s + static_cast<double>(out_.size()) / kSlowestClientBytesPerS);
  flush();
}

void HttpSession::flush() {
  if (write_armed_ || state_ == State::kClosed) return;
  while (sent_ < out_.size()) {
    error_code ec;
    const size_t n = socket_.write_some(asio::buffer(out_.data() + sent_, out_.size() - sent_), ec);
    if (ec == asio::error::would_block || ec == asio::error::try_again) {
      if (sent_ > (size_t{256} << 10)) {
        out_.erase(0, sent_);
        sent_ = 0;
      }
      write_armed_ = true;
      write_deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                           std::chrono::duration<double>(host_.config.write_timeout_s));
      arm_timer();
      socket_.async_wait(asio::ip::tcp::socket::wait_write, [self = shared_from_this()](const error_code& wait_ec) {
        self->write_armed_ = false;
        self->write_deadline_ = Clock::time_point::max();
        if (wait_ec || self->state_ == State::kClosed) return;
        self->guarded([&] { self->flush(); });
      });
      return;
    }
    if (ec) return close();
    sent_ += n;
  }
  out_.clear();
  sent_ = 0;
  if (out_.capacity() > (size_t{1} << 16)) out_.shrink_to_fit();
  if (state_ == State::kFlushing) on_flushed();
}

void HttpSession::on_flushed() {
  if (counted_busy_) {
    counted_busy_ = false;
    if (--host_.busy == 0 && host_.on_quiet) host_.on_quiet();
  }
  if (state_ == State::kClosed) return;
  if (input_ended_ && in_.empty()) return close();
  if (!keep_alive_) return begin_linger();
  streaming_ = false;
  enter(State::kIdle, host_.config.idle_timeout_s);
  parse();
  if (input_ended_ && state_ == State::kIdle) return close();
  arm_read();
}

void HttpSession::begin_linger() {
  // Closing with bytes unread makes the kernel reset the connection, and the client may lose the answer.
  error_code ec;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ec);
  if (ec || input_ended_) return close();
  in_.clear();
  enter(State::kLinger, kLingerSeconds);
  arm_read();
}

// ---------------------------------------------------------------------------------------------------- time and end

void HttpSession::enter(State state, double timeout_s) {
  state_ = state;
  deadline_ = timeout_s > 0
                  ? Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s))
                  : Clock::time_point::max();
  arm_timer();
}

void HttpSession::arm_timer() {
  const auto next = std::min(deadline_, write_deadline_);
  if (next == Clock::time_point::max()) return;
  if (timer_armed_ && timer_.expiry() <= next) return;  // it will look again when it fires
  timer_.expires_at(next);
  timer_armed_ = true;
  timer_.async_wait([self = shared_from_this()](const error_code& ec) {
    if (ec || self->state_ == State::kClosed) return;  // moved, or closed
    self->timer_armed_ = false;
    self->guarded([&] { self->on_timer(); });
  });
}

void HttpSession::on_timer() {
  const auto now = Clock::now();
  if (now >= write_deadline_) return close();
  if (now < deadline_) return arm_timer();
  switch (state_) {
    case State::kHeader:
    case State::kBody:
      return refuse(host_.handler.error(408, "The request did not arrive in time."), false);
    case State::kBusy:
      return interrupt(Gone::kTimeout);
    default:
      return close();
  }
}

void HttpSession::interrupt(Gone reason) {
  if (state_ != State::kBusy) return;
  deadline_ = Clock::time_point::max();
  keep_alive_ = false;
  const auto exchange = exchange_;
  exchange->tell_gone(reason);
  if (exchange_ != exchange) return;
  // The handler had nothing to say.
  if (streaming_) return close();
  exchange->respond(reason == Gone::kTimeout
                        ? host_.handler.error(504, "The request took longer than the server allows.")
                        : host_.handler.error(503, "The server is shutting down."));
}

void HttpSession::close() {
  if (state_ == State::kClosed) return;
  const auto self = shared_from_this();
  state_ = State::kClosed;
  const auto exchange = std::exchange(exchange_, nullptr);
  if (exchange) host_.handler.answered(path_, streaming_ ? 200 : 499);  // 499: nginx's "client closed request"
  charge_body(0);
  error_code ec;
  timer_.cancel();
  socket_.close(ec);
  host_.sessions.erase(self);
  if (exchange) exchange->tell_gone(Gone::kClient);
  if (counted_busy_) {
    counted_busy_ = false;
    if (--host_.busy == 0 && host_.on_quiet) host_.on_quiet();
  }
}

}  // namespace tinyserve
