#pragma once
// One HTTP request out of a stream of bytes. A thin wall around Boost.Beast's parser, which compiles slowly.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "server/http.h"

namespace tinyserve {

class HttpParser {
 public:
  enum class Event {
    kNeedMore,  ///< give it more bytes after the ones it did not take
    kHeader,    ///< the header is complete (told once); a request without a body is then done() too
    kDone,      ///< the request is complete
    kError,     ///< see error_status(), error_message()
  };

  HttpParser(size_t max_header_bytes, size_t max_body_bytes);
  ~HttpParser();

  /// Reads from `data`; `taken` says how many of its bytes it will not need again. Memory for the body grows with what
  /// arrived, whatever length was announced.
  Event put(std::string_view data, size_t& taken);
  bool done() const;

  /// From kHeader on.
  HttpRequest head() const;
  bool keep_alive() const;
  bool http_1_0() const;
  bool expects_continue() const;
  size_t body_bytes() const;
  std::string take_body();

  int error_status() const;
  const std::string& error_message() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tinyserve
