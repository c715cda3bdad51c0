#pragma once
// One connection. Everything here happens on the I/O thread.

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "server/config.h"
#include "server/http.h"
#include "server/http_parser.h"

namespace tinyserve {

class HttpSession;

/// What the connections of a server share.
struct SessionHost {
  const ServerConfig& config;
  HttpHandler& handler;
  std::unordered_set<std::shared_ptr<HttpSession>> sessions = {};
  std::vector<char> scratch = std::vector<char>(size_t{64} << 10);  ///< what is read lands here first
  size_t body_bytes = 0;                                            ///< of all requests read or being read
  int64_t busy = 0;                                                 ///< exchanges not yet answered and flushed
  bool draining = false;                                            ///< connections end with their next answer
  std::function<void()> on_quiet = {};                              ///< busy became 0
};

class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(boost::asio::ip::tcp::socket socket, SessionHost& host);
  ~HttpSession();
  void start();
  /// Ends the running exchange, if any, for the server's own reasons; the handler may still say an error.
  void interrupt(Gone reason);
  /// Closes the connection at once. The running exchange hears kClient.
  void close();

 private:
  class Exchange;
  using Clock = std::chrono::steady_clock;
  enum class State {
    kIdle,      ///< between requests
    kHeader,    ///< some bytes of a request are there
    kBody,      ///< its header was accepted
    kBusy,      ///< the handler has it
    kFlushing,  ///< the answer is complete, not all of it is sent
    kLinger,    ///< nothing more will be said; reads what the client still sends, so that it sees the answer
    kClosed,
  };

  void arm_read();
  void on_readable();
  void on_end_of_input();
  void parse();
  void on_header();
  void dispatch();
  /// Answers a request of which something is unread, and ends the connection if that matters.
  void refuse(HttpResponse response, bool readable);
  void write_response(const HttpResponse& response);
  void end_exchange();
  void flush();
  void on_flushed();
  void begin_linger();
  void charge_body(size_t bytes);
  void enter(State state, double timeout_s);  ///< timeout 0: none
  void arm_timer();
  void on_timer();
  bool reads_wanted() const;
  /// Runs fn; an exception (no memory) ends this connection, not the server.
  template <class Fn>
  void guarded(Fn&& fn);

  boost::asio::ip::tcp::socket socket_;
  SessionHost& host_;
  boost::asio::steady_timer timer_;
  State state_ = State::kIdle;
  std::string in_;   // read and not yet parsed
  std::string out_;  // said and not yet sent, from sent_ on
  size_t sent_ = 0;
  std::unique_ptr<HttpParser> parser_;
  std::shared_ptr<Exchange> exchange_;
  std::string path_;    // of the current request
  int status_ = 0;      // of its answer
  size_t charged_ = 0;  // body bytes counted in host_.body_bytes
  size_t lingered_ = 0;
  int64_t requests_ = 0;
  bool head_only_ = false;
  bool keep_alive_ = false;
  bool http_1_0_ = false;
  bool counted_busy_ = false;
  bool streaming_ = false;
  bool input_ended_ = false;
  bool parsing_ = false;
  bool read_armed_ = false;
  bool write_armed_ = false;
  bool timer_armed_ = false;
  Clock::time_point deadline_ = Clock::time_point::max();        // of the state
  Clock::time_point write_deadline_ = Clock::time_point::max();  // for the client to take something
};

}  // namespace tinyserve
