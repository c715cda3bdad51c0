#include <fmt/format.h>

#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "cli/flags.h"
#include "cli/model_runtime.h"
#include "cli/serving.h"
#include "cli/units.h"
#include "server/config.h"
#include "server/server.h"

namespace tinyserve::cli {
namespace {

constexpr const char* kApiKeyVariable = "TINYSERVE_API_KEY";
constexpr int64_t kMaxSize = int64_t{1} << 40;

struct ServeFlags {
  ModelFlags model;
  EngineConfig engine;
  ServerConfig server;
  std::string api_key_file, chat_template;
  int32_t port = 8080;
  // The server counts bytes in size_t; flags are signed so that a negative one is refused, not wrapped around.
  int64_t max_body, max_total_body, max_header, max_json_values, max_stream_buffer;
};

void add_keys(ServeFlags& f) {
  if (const char* key = std::getenv(kApiKeyVariable); key && *key) f.server.api_keys.emplace_back(key);
  if (f.api_key_file.empty()) return;
  const std::string text = read_text_file(f.api_key_file, 1 << 20);
  const size_t before = f.server.api_keys.size();
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string key = text.substr(begin, end - begin);
    while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) key.pop_back();
    if (!key.empty()) f.server.api_keys.push_back(key);
    begin = end + 1;
  }
  if (f.server.api_keys.size() == before) throw InputError(fmt::format("--api-key-file {}: holds no key", f.api_key_file));
}

int run(ServeFlags& f) {
  for (const std::string& key : f.server.api_keys)
    if (key.empty()) throw InputError("--api-key: the key is empty");
  add_keys(f);
  f.server.port = static_cast<uint16_t>(f.port);
  f.server.max_body_bytes = static_cast<size_t>(f.max_body);
  f.server.max_total_body_bytes = static_cast<size_t>(f.max_total_body);
  f.server.max_header_bytes = static_cast<size_t>(f.max_header);
  f.server.max_json_values = static_cast<size_t>(f.max_json_values);
  f.server.max_stream_buffer_bytes = static_cast<size_t>(f.max_stream_buffer);
  ModelRuntime runtime(f.model);
  log_info(fmt::format("{}: {} parameters, {}, loaded in {:.2f} s; {} ({})", runtime.folder().string(),
                       format_count(runtime.model().config().num_parameters), runtime.precision(), runtime.load_seconds(),
                       runtime.ops().name(), runtime.ops().description()));
  Serving serving(runtime, f.engine, f.server, f.chat_template);
  serving.server().run();
  return 0;
}

void add_limit_flags(CLI::App& app, ServeFlags& f) {
  ServerConfig& s = f.server;
  f.max_body = static_cast<int64_t>(s.max_body_bytes);
  f.max_total_body = static_cast<int64_t>(s.max_total_body_bytes);
  f.max_header = static_cast<int64_t>(s.max_header_bytes);
  f.max_json_values = static_cast<int64_t>(s.max_json_values);
  f.max_stream_buffer = static_cast<int64_t>(s.max_stream_buffer_bytes);
  FlagGroup limits(app, "Limits on clients");
  limits.number("--max-queued", f.engine.max_queued, 0, 1 << 24, "Requests waiting for the engine; more are answered 429")
      .number("--max-connections", s.max_connections, 1, 1 << 20, "Open connections; more are answered 503")
      .bytes("--max-body", f.max_body, 1, kMaxSize, "Body of one request; more is 413")
      .bytes("--max-total-body", f.max_total_body, 1, kMaxSize, "Bodies of all requests being read; more is 503")
      .bytes("--max-header", f.max_header, 256, 1 << 20, "Request line and header fields; more is 431")
      .number("--max-json-values", f.max_json_values, 1, int64_t{1} << 32, "Values in one JSON body")
      .number("--max-prompts", s.max_prompts, 1, 1 << 20, "Prompts in one request to /v1/completions")
      .number("--max-n", s.max_n, 1, 1 << 10, "Choices of one prompt (n)")
      .number("--max-choices", s.max_choices, 1, 1 << 20, "Prompts times n of one request")
      .decimal("--header-timeout", s.header_timeout_s, 0.001, 1e6, "Seconds from a request's first byte to its last header field")
      .decimal("--body-timeout", s.body_timeout_s, 0.001, 1e6, "Seconds from there to the end of the body")
      .decimal("--idle-timeout", s.idle_timeout_s, 0.001, 1e6, "Seconds between two requests of a connection")
      .decimal("--write-timeout", s.write_timeout_s, 0.001, 1e6, "Seconds without the client taking a byte")
      .decimal("--request-timeout", s.request_timeout_s, 0, 1e6, "Seconds from a complete request to the end of its answer", "none")
      .bytes("--max-stream-buffer", f.max_stream_buffer, 4096, kMaxSize, "Streamed bytes a client may leave unread")
      .number("--worker-threads", s.worker_threads, 1, 256, "Threads that parse and tokenise requests")
      .number("--max-worker-queue", s.max_worker_queue, 1, 1 << 20, "Requests waiting for them; more are answered 429")
      .decimal("--drain-timeout", s.drain_timeout_s, 0, 1e6, "Seconds running requests get after the first SIGTERM");
}

}  // namespace

void add_serve(CLI::App& root, Action& action) {
  const auto f = std::make_shared<ServeFlags>();
  CLI::App& app = add_command(root, "serve", "Serve the model over HTTP, as OpenAI's API", action, [f] { return run(*f); });
  FlagGroup server(app, "Server");
  server.text("--host", f->server.host, "ADDRESS", "Address or name to listen on; 0.0.0.0 opens it to the network")
      .number("--port", f->port, 0, 65535, "Port to listen on; 0: a free one, which is printed")
      .texts("--api-key", f->server.api_keys, "KEY",
             std::string("Bearer token clients must send; seen by other users of the machine, unlike ") + kApiKeyVariable +
                 " in the environment, which is read too")
      .text("--api-key-file", f->api_key_file, "FILE", "The same, one key a line", "none")
      .flag("--share-prefixes", f->server.share_cache_between_keys,
            "Let requests of one API key find cached prompts of another's; each can then time the other's")
      .texts("--served-model-name", f->server.model_names, "NAME",
             "Name requests ask for and answers carry; without one, the folder's name")
      .text("--chat-template", f->chat_template, "FILE", "Jinja file instead of the model's own", "the model's")
      .text("--record-trace", f->server.record_trace, "FILE",
            "Record arrivals, lengths and which pages are equal there, for tinyserve replay; never any text", "none");
  add_log_flag(server);
  FlagGroup model(app, "Model");
  add_model_flags(model, f->model);
  FlagGroup engine(app, "Engine");
  add_engine_flags(engine, f->engine);
  add_limit_flags(app, *f);
}

}  // namespace tinyserve::cli
