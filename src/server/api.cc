#include "server/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "base/log.h"
#include "server/generation_run.h"
#include "server/kv_json.h"
#include "server/json_fields.h"
#include "server/request_parsing.h"
#include "server/response_json.h"
#include "server/work_queue.h"

namespace tinyserve {
namespace {

enum class Route { kHealth, kVersion, kMetrics, kModels, kModel, kCompletions, kChat, kTokenize, kDetokenize, kDebugKv };

struct RouteEntry {
  const char* path;  // as counted in metrics
  Route route;
  bool post;
};

constexpr RouteEntry kRoutes[] = {
    {"/health", Route::kHealth, false},           {"/version", Route::kVersion, false},
    {"/metrics", Route::kMetrics, false},         {"/v1/models", Route::kModels, false},
    {"/v1/models/{id}", Route::kModel, false},    {"/v1/completions", Route::kCompletions, true},
    {"/v1/chat/completions", Route::kChat, true}, {"/tokenize", Route::kTokenize, true},
    {"/detokenize", Route::kDetokenize, true},    {"/debug/kv", Route::kDebugKv, false},
};
constexpr double kPageMapTimeout_s = 5;
constexpr std::string_view kModelPrefix = "/v1/models/";

const RouteEntry* find_route(std::string_view path) {
  if (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  for (const RouteEntry& entry : kRoutes)
    if (path == entry.path && entry.route != Route::kModel) return &entry;
  if (path.starts_with(kModelPrefix) && path.size() > kModelPrefix.size())
    return std::find_if(std::begin(kRoutes), std::end(kRoutes),
                        [](const RouteEntry& e) { return e.route == Route::kModel; });
  return nullptr;
}

const char* allowed_methods(const RouteEntry& entry) { return entry.post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS"; }

std::string percent_decode(std::string_view text) {
  std::string out;
  const auto hex = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() + 0 && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0) {
      out += static_cast<char>(hex(text[i + 1]) * 16 + hex(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// Takes as long for a wrong key as for a right one of the same length.
bool equal_constant_time(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  volatile unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i)
    difference =
        static_cast<unsigned char>(difference | (static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i])));
  return difference == 0;
}

HttpResponse to_response(const ApiError& error) {
  HttpResponse response{.status = error.status, .body = error_body(error)};
  if (error.status == 429 || error.status == 503) response.headers.emplace_back("Retry-After", "1");
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

ApiError busy(const std::string& message) { return ApiError(429, message, "", "queue_full", "rate_limit_error"); }

}  // namespace

struct Api::State {
  State(const ServerConfig& config, Backend& backend, const TextFront& text, ServerMetrics& metrics)
      : config(config),
        backend(backend),
        metrics(metrics),
        text(text),
        context{config, text, backend.max_context()},
        started_s(std::time(nullptr)),
        workers(std::max(1, config.worker_threads), static_cast<size_t>(std::max(1, config.max_worker_queue))) {}

  /// The API key of an Authorization field: an entry of the configuration, "" when there are none; null for a wrong one.
  const std::string* key_of(std::string_view authorization) const;
  HttpResponse get(const RouteEntry& entry, const std::string& path);
  /// Worker thread. The answer, or nothing when a run was started that will answer itself.
  std::optional<HttpResponse> post(Route route, std::string&& body, const std::shared_ptr<GenerationRun>& run);
  std::optional<HttpResponse> post_checked(Route route, std::string&& body, const std::shared_ptr<GenerationRun>& run);
  std::string make_id(const char* prefix);

  const ServerConfig& config;
  Backend& backend;
  ServerMetrics& metrics;
  const TextFront& text;
  const ApiContext context;
  const int64_t started_s;
  Server server;
  std::mutex random_mutex;
  std::mt19937_64 random{std::random_device{}()};
  WorkQueue workers;  // last: its threads use the rest
};

Api::Api(const ServerConfig& config, Backend& backend, const TextFront& text, ServerMetrics& metrics)
    : state_(std::make_shared<State>(config, backend, text, metrics)) {}

Api::~Api() = default;

void Api::attach(Server server) { state_->server = std::move(server); }

const std::string* Api::State::key_of(std::string_view value) const {
  static const std::string kNoKey;
  if (config.api_keys.empty()) return &kNoKey;
  constexpr std::string_view kScheme = "bearer ";
  if (value.size() < kScheme.size() || !std::equal(kScheme.begin(), kScheme.end(), value.begin(),
                                                   [](char a, char b) { return a == (b | 32) || a == b; }))
    return nullptr;
  value.remove_prefix(kScheme.size());
  const std::string* found = nullptr;
  for (const std::string& key : config.api_keys)
    if (equal_constant_time(value, key)) found = &key;
  return found;
}

std::optional<HttpResponse> Api::refuse(const HttpRequest& head) {
  const RouteEntry* entry = find_route(head.path);
  if (!(entry && entry->route == Route::kHealth) && !state_->key_of(head.authorization))
    return to_response(ApiError(401, "The API key is missing or wrong. Send it as \"Authorization: Bearer KEY\".", "",
                                "invalid_api_key"));
  if (!entry)
    return to_response(ApiError(404, fmt::format("There is no {} here.", head.path.substr(0, 200)), "", "not_found"));
  const bool known_method =
      head.method == "OPTIONS" || (entry->post ? head.method == "POST" : head.method == "GET" || head.method == "HEAD");
  if (!known_method) {
    HttpResponse response = to_response(ApiError(
        405, fmt::format("{} does not take {}; it takes {}.", entry->path, head.method, allowed_methods(*entry)), "",
        "method_not_allowed"));
    response.headers.emplace_back("Allow", allowed_methods(*entry));
    return response;
  }
  if (entry->post && state_->server.draining && state_->server.draining())
    return to_response(ApiError(503, "The server is shutting down.", "", "shutting_down", "server_error"));
  return std::nullopt;
}

void Api::handle(HttpRequest&& request, std::shared_ptr<HttpExchange> exchange) {
  const RouteEntry& entry = *find_route(request.path);  // refuse() let it through
  if (request.method == "OPTIONS")
    return exchange->respond({.status = 204, .headers = {{"Allow", allowed_methods(entry)}}});
  if (!entry.post && entry.route != Route::kDebugKv) return exchange->respond(state_->get(entry, request.path));

  State& s = *state_;
  std::shared_ptr<GenerationRun> run;
  if (entry.route == Route::kCompletions || entry.route == Route::kChat) {
    const std::string& key = *s.key_of(request.authorization);  // refuse() let it through
    run = std::make_shared<GenerationRun>(s.backend, s.workers, s.server.poster, exchange,
                                          s.config.share_cache_between_keys ? std::string() : key);
    run->watch();
  }
  auto job = [&s, route = entry.route, run, exchange, body = std::make_shared<std::string>(std::move(request.body))] {
    auto response = s.post(route, std::move(*body), run);
    if (!response) return;
    s.server.poster->post(
        [exchange, response = std::move(*response)]() mutable { exchange->respond(std::move(response)); });
  };
  if (!s.workers.push(std::move(job)))
    exchange->respond(to_response(busy("The server has too many requests waiting; try again later.")));
}

HttpResponse Api::State::get(const RouteEntry& entry, const std::string& path) {
  switch (entry.route) {
    case Route::kHealth:
      if (server.draining && server.draining()) return {.status = 503, .body = R"({"status":"draining"})"};
      return {.body = R"({"status":"ok"})"};
    case Route::kVersion:
      return {.body = R"({"version":")" TINYSERVE_VERSION R"("})"};
    case Route::kMetrics:
      return {.body = metrics.text(backend.stats(), server.connections ? server.connections() : 0),
              .content_type = "text/plain; version=0.0.4; charset=utf-8"};
    case Route::kModels:
      return {.body = models_body(config, context.max_context, started_s)};
    default:
      break;
  }
  const std::string name = percent_decode(std::string_view(path).substr(kModelPrefix.size()));
  if (std::find(config.model_names.begin(), config.model_names.end(), name) != config.model_names.end())
    return {.body = model_body(name, context.max_context, started_s)};
  return to_response(ApiError(404,
                              fmt::format("The model {} is not served here; {} is.", brief(OrderedJson(name)),
                                          fmt::join(config.model_names, ", ")),
                              "model", "model_not_found"));
}

std::optional<HttpResponse> Api::State::post(Route route, std::string&& body,
                                             const std::shared_ptr<GenerationRun>& run) {
  try {
    return post_checked(route, std::move(body), run);
  } catch (const ApiError& e) {
    return to_response(e);
  } catch (const InputError& e) {  // what only the engine or the tokenizer can tell
    return to_response(ApiError(400, e.what()));
  } catch (const QueueFull& e) {
    return to_response(busy(e.what()));
  } catch (const std::bad_alloc&) {
    log_error("a request was refused for want of memory");
    return to_response(
        ApiError(503, "The server has no memory left for this request.", "", "out_of_memory", "server_error"));
  } catch (const std::exception& e) {
    log_error(fmt::format("a request failed: {}", e.what()));
    return to_response(ApiError(500, "The server failed; its log says more.", "", "internal_error", "server_error"));
  }
}

std::optional<HttpResponse> Api::State::post_checked(Route route, std::string&& body,
                                                     const std::shared_ptr<GenerationRun>& run) {
  if (run && run->cancelled()) return std::nullopt;
  if (route == Route::kDebugKv) {
    const std::shared_ptr<const PageMap> map = backend.page_map(kPageMapTimeout_s);
    if (!map) throw ApiError(503, "The engine had no time for a map of its pages; try again.", "", "busy", "server_error");
    return HttpResponse{.body = page_map_body(*map)};
  }
  const OrderedJson json = parse_body(body, config.max_json_values);
  std::string().swap(body);
  if (route == Route::kTokenize) return HttpResponse{.body = answer_tokenize(json, context)};
  if (route == Route::kDetokenize) return HttpResponse{.body = answer_detokenize(json, context)};
  const bool chat = route == Route::kChat;
  GenerationPlan plan = chat ? plan_chat(json, context) : plan_completion(json, context);
  run->start(Generation(std::move(plan), text, make_id(chat ? "chatcmpl-" : "cmpl-"), std::time(nullptr)));
  return std::nullopt;
}

std::string Api::State::make_id(const char* prefix) {
  const std::lock_guard lock(random_mutex);
  return fmt::format("{}{:016x}{:016x}", prefix, random(), random());
}

HttpResponse Api::error(int status, std::string_view message) {
  ApiError error(status, std::string(message));
  if (status == 413 || status == 431) error.code = "request_too_large";
  if (status == 408) error.code = "request_timeout";
  if (status >= 500) error.type = "server_error";
  return to_response(error);
}

void Api::answered(std::string_view path, int status) {
  const RouteEntry* entry = find_route(path);
  state_->metrics.count_http(entry ? entry->path : "other", status);
}

}  // namespace tinyserve
