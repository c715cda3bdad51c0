#include "server/http_server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <csignal>
#include <mutex>

#include "base/error.h"
#include "base/log.h"
#include "server/http_session.h"

namespace tinyserve {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr int kReservedFiles = 128;  // for everything that is not a connection
constexpr auto kLastWords = std::chrono::milliseconds(500);

// Asks for the open files that max_connections needs and returns how many connections there may be.
int64_t allowed_connections(int64_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  const rlim_t needed = static_cast<rlim_t>(wanted) + kReservedFiles;
  if (limit.rlim_cur < needed) {
    rlimit raised = limit;
    raised.rlim_cur = std::min(needed, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  const auto files = static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, 1 << 24));
  const int64_t allowed = std::clamp<int64_t>(files - kReservedFiles, 1, wanted);
  if (allowed < wanted)
    log_warn(fmt::format("at most {} connections instead of {}: the limit of open files is {} (ulimit -n)", allowed,
                         wanted, files));
  return allowed;
}

class Poster : public IoPoster {
 public:
  explicit Poster(asio::io_context& io) : io_(&io) {}
  void post(std::function<void()> fn) override {
    const std::lock_guard lock(mutex_);
    if (io_) asio::post(*io_, std::move(fn));
  }
  void end() {
    const std::lock_guard lock(mutex_);
    io_ = nullptr;
  }

 private:
  std::mutex mutex_;
  asio::io_context* io_;
};

}  // namespace

struct HttpServer::State {
  State(const ServerConfig& config, HttpHandler& handler)
      : config(config), host{.config = config, .handler = handler} {}

  void listen();
  void accept();
  void turn_away(tcp::socket socket);
  void wait_for_signal();
  void begin_drain();
  void end_drain(bool in_time);
  void finish();

  const ServerConfig& config;
  asio::io_context io{1};
  SessionHost host;
  tcp::acceptor acceptor{io};
  asio::steady_timer accept_pause{io};
  asio::steady_timer drain_timer{io};
  asio::signal_set signals{io};
  std::shared_ptr<Poster> poster = std::make_shared<Poster>(io);
  int64_t max_connections = 0;
  std::atomic<int64_t> connections{0};
  std::atomic<bool> draining{false};
  bool finished = false;
};

void HttpServer::State::listen() {
  error_code ec;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(config.host, std::to_string(config.port),
                                      tcp::resolver::passive | tcp::resolver::numeric_service, ec);
  if (ec || found.empty())
    throw InputError(
        fmt::format("cannot listen on host \"{}\": {}; use an address of this machine, e.g. 127.0.0.1 or 0.0.0.0",
                    config.host, ec.message()));
  const tcp::endpoint endpoint = found.begin()->endpoint();
  const auto fail = [&](const char* advice) {
    throw InputError(fmt::format("cannot listen on {}:{}: {}{}", config.host, config.port, ec.message(), advice));
  };
  acceptor.open(endpoint.protocol(), ec);
  if (ec) fail("");
  acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  acceptor.bind(endpoint, ec);
  if (ec == asio::error::address_in_use)
    fail("; another program has that port: stop it, or choose another one (port 0 takes a free one)");
  if (ec == asio::error::access_denied) fail("; ports below 1024 need privileges: choose another one");
  if (ec) fail("");
  acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (ec) fail("");
  acceptor.non_blocking(true, ec);
}

void HttpServer::State::accept() {
  acceptor.async_accept([this](const error_code& ec, tcp::socket socket) {
    if (!acceptor.is_open()) return;
    if (ec == asio::error::no_descriptors || ec == boost::system::errc::too_many_files_open_in_system ||
        ec == asio::error::no_memory || ec == asio::error::no_buffer_space) {
      // Out of something: the queue of the kernel keeps the rest until a connection ends.
      accept_pause.expires_after(std::chrono::milliseconds(50));
      accept_pause.async_wait([this](const error_code& wait_ec) {
        if (!wait_ec && acceptor.is_open()) accept();
      });
      return;
    }
    if (!ec) {
      if (static_cast<int64_t>(host.sessions.size()) >= max_connections) {
        turn_away(std::move(socket));
      } else {
        auto session = std::make_shared<HttpSession>(std::move(socket), host);
        host.sessions.insert(session);
        session->start();
      }
      connections.store(static_cast<int64_t>(host.sessions.size()), std::memory_order_relaxed);
    }
    accept();
  });
}

void HttpServer::State::turn_away(tcp::socket socket) {
  const HttpResponse response =
      host.handler.error(503, "The server has as many connections as it takes; try again later.");
  host.handler.answered("", response.status);
  const std::string text = fmt::format(
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: {}\r\nContent-Length: {}\r\nRetry-After: 1\r\nConnection: "
      "close\r\n\r\n{}",
      response.content_type, response.body.size(), response.body);
  error_code ec;
  socket.non_blocking(true, ec);
  socket.write_some(asio::buffer(text), ec);  // fits a fresh socket's buffer
  socket.shutdown(tcp::socket::shutdown_send, ec);
  socket.close(ec);
}

void HttpServer::State::wait_for_signal() {
  signals.async_wait([this](const error_code& ec, int signal) {
    if (ec) return;
    if (!draining) {
      log_info(fmt::format("{}: finishing {} running request(s), at most {:g} s; once more to stop at once",
                           signal == SIGINT ? "interrupted" : "terminated", host.busy, config.drain_timeout_s));
      wait_for_signal();
      begin_drain();
    } else {
      log_info("stopping at once");
      finish();
    }
  });
}

void HttpServer::State::begin_drain() {
  if (draining.exchange(true)) return;
  host.draining = true;
  error_code ec;
  acceptor.close(ec);
  accept_pause.cancel();
  if (host.busy == 0) return finish();
  host.on_quiet = [this] { asio::post(io, [this] { end_drain(true); }); };
  drain_timer.expires_after(std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(config.drain_timeout_s)));
  drain_timer.async_wait([this](const error_code& wait_ec) {
    if (!wait_ec) end_drain(false);
  });
}

void HttpServer::State::end_drain(bool in_time) {
  if (finished || (in_time && host.busy > 0)) return;
  if (in_time) return finish();
  log_warn(fmt::format("{} request(s) did not finish within {:g} s and are cut", host.busy, config.drain_timeout_s));
  const auto sessions = host.sessions;  // interrupt() changes the set
  for (const auto& session : sessions) session->interrupt(Gone::kShutdown);
  drain_timer.expires_after(kLastWords);
  drain_timer.async_wait([this](const error_code& ec) {
    if (!ec) finish();
  });
}

void HttpServer::State::finish() {
  if (finished) return;
  finished = true;
  host.on_quiet = nullptr;
  error_code ec;
  acceptor.close(ec);
  const auto sessions = host.sessions;
  for (const auto& session : sessions) session->close();
  io.stop();
}

HttpServer::HttpServer(const ServerConfig& config, HttpHandler& handler)
    : state_(std::make_unique<State>(config, handler)) {
  state_->max_connections = allowed_connections(std::max(1, config.max_connections));
  state_->listen();
}

HttpServer::~HttpServer() {
  state_->poster->end();
  state_->finish();
}

uint16_t HttpServer::port() const {
  error_code ec;
  return state_->acceptor.local_endpoint(ec).port();
}

std::string HttpServer::url() const {
  const bool bare_v6 = state_->config.host.find(':') != std::string::npos;
  return fmt::format("http://{}{}{}:{}", bare_v6 ? "[" : "", state_->config.host, bare_v6 ? "]" : "", port());
}

std::shared_ptr<IoPoster> HttpServer::poster() const { return state_->poster; }
int64_t HttpServer::connections() const { return state_->connections.load(std::memory_order_relaxed); }
bool HttpServer::draining() const { return state_->draining; }

void HttpServer::run() {
  State& s = *state_;
  if (s.config.handle_signals) {
    s.signals.add(SIGINT);
    s.signals.add(SIGTERM);
    s.wait_for_signal();
  }
  s.accept();
  const auto work = asio::make_work_guard(s.io);
  while (!s.io.stopped()) {
    try {
      s.io.run();
    } catch (const std::exception& e) {  // sessions catch their own; what is left is accepting and posting
      log_error(fmt::format("the I/O thread goes on after: {}", e.what()));
    }
  }
}

void HttpServer::stop() {
  state_->poster->post([s = state_.get()] { s->begin_drain(); });
}

void HttpServer::stop_now() {
  state_->poster->post([s = state_.get()] { s->finish(); });
}

}  // namespace tinyserve
