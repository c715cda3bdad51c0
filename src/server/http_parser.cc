#include "server/http_parser.h"

#include <fmt/format.h>

#include <boost/beast/http.hpp>

namespace tinyserve {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

// Like beast's string_body, which reserves the announced length at once: ten thousand headers that announce 32 MB and
// send nothing would reserve 320 GB.
struct GrowingBody {
  using value_type = std::string;
  class reader {
   public:
    template <bool is_request, class Fields>
    reader(http::header<is_request, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<uint64_t>&, beast::error_code& ec) { ec = {}; }
    template <class Buffers>
    size_t put(const Buffers& buffers, beast::error_code& ec) {
      ec = {};
      size_t size = 0;
      for (const auto buffer : beast::buffers_range_ref(buffers)) {
        body_.append(static_cast<const char*>(buffer.data()), buffer.size());
        size += buffer.size();
      }
      return size;
    }
    void finish(beast::error_code& ec) { ec = {}; }

   private:
    value_type& body_;
  };
};

}  // namespace

struct HttpParser::State {
  http::request_parser<GrowingBody> parser;
  size_t max_header_bytes;
  size_t max_body_bytes;
  bool header_told = false;
  int error_status = 0;
  std::string error_message;

  Event fail(int status, std::string message) {
    error_status = status;
    error_message = std::move(message);
    return Event::kError;
  }

  Event fail(const beast::error_code& ec) {
    if (ec == http::error::header_limit)
      return fail(431, fmt::format("The request's header has more than {} bytes.", max_header_bytes));
    if (ec == http::error::body_limit)
      return fail(413, fmt::format("The request's body has more than {} bytes.", max_body_bytes));
    return fail(400, fmt::format("This is not an HTTP/1.1 request: {}.", ec.message()));
  }

  // What Beast lets pass and RFC 9112 does not.
  const char* complaint() const {
    const auto& message = parser.get();
    if (message.version() >= 11 && message.count(http::field::host) != 1) return "The request needs one Host field.";
    if (message.count(http::field::transfer_encoding) > 0 && !parser.chunked())
      return "The only supported Transfer-Encoding is chunked.";
    return nullptr;
  }
};

HttpParser::HttpParser(size_t max_header_bytes, size_t max_body_bytes) : state_(std::make_unique<State>()) {
  state_->max_header_bytes = max_header_bytes;
  state_->max_body_bytes = max_body_bytes;
  state_->parser.header_limit(static_cast<uint32_t>(max_header_bytes));
  state_->parser.body_limit(max_body_bytes);
  state_->parser.eager(false);  // stop after the header: it may be refused before the body is taken
}

HttpParser::~HttpParser() = default;

HttpParser::Event HttpParser::put(std::string_view data, size_t& taken) {
  State& s = *state_;
  beast::error_code ec;
  taken = s.parser.put(asio::const_buffer(data.data(), data.size()), ec);
  if (ec && ec != http::error::need_more) return s.fail(ec);
  if (!s.header_told && s.parser.is_header_done()) {
    s.header_told = true;
    s.parser.eager(true);
    if (const char* complaint = s.complaint()) return s.fail(400, complaint);
    return Event::kHeader;
  }
  if (s.parser.is_done()) return Event::kDone;
  // Fields are bounded by the header limit; the line before a chunk is not, so it is bounded here.
  if (data.size() - taken > s.max_header_bytes) return s.fail(400, "A chunk's header is too long.");
  return Event::kNeedMore;
}

bool HttpParser::done() const { return state_->parser.is_done(); }

HttpRequest HttpParser::head() const {
  const auto& message = state_->parser.get();
  HttpRequest request;
  request.method = std::string(message.method_string());
  std::string_view target(message.target().data(), message.target().size());
  if (target.starts_with("http://")) {  // the absolute form, meant for proxies, must be understood too
    const size_t slash = target.find('/', 7);
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  request.path = std::string(target.substr(0, target.find('?')));
  const auto authorization = message[http::field::authorization];
  request.authorization = std::string(authorization.data(), authorization.size());
  const auto length = state_->parser.content_length();
  request.has_body = state_->parser.chunked() || (length && *length > 0);
  return request;
}

bool HttpParser::keep_alive() const { return state_->parser.keep_alive(); }
bool HttpParser::http_1_0() const { return state_->parser.get().version() < 11; }

bool HttpParser::expects_continue() const {
  return beast::iequals(state_->parser.get()[http::field::expect], "100-continue");
}

size_t HttpParser::body_bytes() const { return state_->parser.get().body().size(); }
std::string HttpParser::take_body() { return std::move(state_->parser.get().body()); }
int HttpParser::error_status() const { return state_->error_status; }
const std::string& HttpParser::error_message() const { return state_->error_message; }

}  // namespace tinyserve
