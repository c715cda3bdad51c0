#include "server/generation_run.h"

#include "base/error.h"
#include "base/log.h"
#include "server/cache_salt.h"
#include "server/response_json.h"

namespace tinyserve {

GenerationRun::GenerationRun(Backend& backend, WorkQueue& workers, std::shared_ptr<IoPoster> poster,
                             std::shared_ptr<HttpExchange> exchange, std::string tenant)
    : backend_(backend),
      workers_(workers),
      poster_(std::move(poster)),
      exchange_(std::move(exchange)),
      tenant_(std::move(tenant)) {}

void GenerationRun::watch() {
  exchange_->on_gone([weak = weak_from_this()](Gone reason) {
    if (const auto self = weak.lock()) self->gone(reason);
  });
}

bool GenerationRun::cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

void GenerationRun::start(Generation generation) {
  const size_t num_prompts = generation.plan().prompts.size();
  {
    const std::lock_guard lock(mutex_);
    generation_ = std::make_unique<Generation>(std::move(generation));
  }
  try {
    const std::string salt = cache_salt(tenant_, generation_->plan().cache_salt);
    for (size_t i = 0; i < num_prompts; ++i) {
      if (cancelled()) return;
      const uint64_t id = backend_.submit(
          {generation_->plan().prompts[i].ids, generation_->plan().sampling, salt, generation_->plan().selection},
          [self = shared_from_this(), i](Output&& output) { self->hear(i, std::move(output)); });
      bool too_late = false;
      {
        const std::lock_guard lock(mutex_);
        ids_.push_back(id);
        too_late = cancelled_;
      }
      if (too_late) backend_.cancel(id);  // not under the lock: the engine may be waiting for it in hear()
    }
  } catch (...) {
    cancel();
    throw;
  }
  const std::lock_guard lock(mutex_);
  started_ = true;
  if (!inbox_.empty() && !posted_) {
    posted_ = true;
    poster_->post([self = shared_from_this()] { self->deliver(); });
  }
}

void GenerationRun::hear(size_t prompt_index, Output&& output) {
  const std::lock_guard lock(mutex_);
  if (cancelled_) return;
  inbox_.emplace_back(prompt_index, std::move(output));
  // One wake-up of the I/O thread takes all that came until it got there.
  if (!started_ || posted_) return;
  posted_ = true;
  poster_->post([self = shared_from_this()] { self->deliver(); });
}

void GenerationRun::deliver() {
  std::vector<std::pair<size_t, Output>> outputs;
  {
    const std::lock_guard lock(mutex_);
    posted_ = false;
    outputs.swap(inbox_);
  }
  if (finished_) return;
  std::string events;
  for (auto& [prompt_index, output] : outputs) generation_->take(prompt_index, std::move(output), events);
  if (generation_->aborted()) {
    cancel();
    const std::string& reason = generation_->abort_reason();
    return fail(reason.empty() ? 503 : 500,
                "The request was ended before its answer was complete" + (reason.empty() ? "." : ": " + reason));
  }
  if (!events.empty() && !exchange_->streaming()) exchange_->start_stream("text/event-stream; charset=utf-8");
  if (generation_->done()) {
    finished_ = true;
    if (!generation_->plan().stream) return answer();
    exchange_->send(events + generation_->stream_end());
    exchange_->end_stream(true);
    return;
  }
  exchange_->send(events);
}

void GenerationRun::answer() {
  const GenerationPlan& plan = generation_->plan();
  if (plan.logprobs < 0 && plan.prompt_logprobs < 0) return exchange_->respond({.body = generation_->body()});
  // The log-probabilities of a long prompt take a while to write down; the request was let in, so it need not queue
  // again.
  workers_.push_always([self = shared_from_this()] {
    HttpResponse response;
    try {
      response.body = self->generation_->body();
    } catch (const std::exception& e) {
      log_error(std::string("building an answer failed: ") + e.what());
      response = {500, error_body(ApiError(500, "The answer could not be built.", "", "", "server_error"))};
    }
    self->poster_->post(
        [self, response = std::move(response)]() mutable { self->exchange_->respond(std::move(response)); });
  });
}

void GenerationRun::gone(Gone reason) {
  cancel();
  if (finished_) return;
  if (reason == Gone::kTimeout) return fail(504, "The request took longer than the server allows.");
  if (reason == Gone::kShutdown) return fail(503, "The server is shutting down.");
  finished_ = true;
}

void GenerationRun::fail(int status, const std::string& message) {
  finished_ = true;
  const std::string body =
      error_body(ApiError(status, message, "", status == 504 ? "timeout" : "aborted", "server_error"));
  if (exchange_->streaming()) {
    exchange_->send("data: " + body + "\n\n");
    exchange_->end_stream(false);
  } else {
    exchange_->respond({.status = status, .body = body});
  }
}

void GenerationRun::cancel() {
  std::vector<uint64_t> ids;
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    inbox_.clear();
    ids = ids_;
  }
  for (const uint64_t id : ids) backend_.cancel(id);
}

}  // namespace tinyserve
