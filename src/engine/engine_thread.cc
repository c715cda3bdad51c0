#include "engine/engine_thread.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/log.h"
#include "kv/page_map.h"

namespace tinyserve {
namespace {
constexpr std::chrono::milliseconds kIdlePeriod{20};  // between two looks at what can be done without requests
}

struct EngineThread::State {
  struct Submit {
    uint64_t id;
    Request request;
    OutputSink sink;
  };

  explicit State(std::unique_ptr<Engine> e) : engine(std::move(e)), snapshot(engine->stats()) {}

  void loop();
  void take_mail(std::unique_lock<std::mutex>& lock);
  void extend_map(std::unique_lock<std::mutex>& lock);
  void add(Submit& submit);

  std::unique_ptr<Engine> engine;  // the thread's own, but for what never changes
  // Under the mutex:
  mutable std::mutex mutex;
  std::condition_variable mail, idle, map_done;
  std::vector<Submit> submits;
  std::vector<uint64_t> cancels;
  EngineStats snapshot;
  uint64_t next_id = 1;
  uint64_t maps_taken = 0;
  bool map_wanted = false;
  std::shared_ptr<const PageMap> map;  // the last one taken
  bool draining = false, stopping = false, busy = false;
  // The thread's own: the map being taken.
  std::shared_ptr<PageMap> next_map;
  int32_t map_next_page = 0;
  // The thread's own: mail being delivered; kept for their capacity.
  std::vector<Submit> new_submits;
  std::vector<uint64_t> new_cancels;
  std::thread thread;
};

void EngineThread::State::loop() {
  std::unique_lock lock(mutex);
  while (true) {
    take_mail(lock);  // returns with the lock held; sleeps when there is nothing to do
    if (stopping && submits.empty()) break;
    if (map_wanted) extend_map(lock);
    lock.unlock();
    engine->step();
    const EngineStats stats = engine->stats();
    lock.lock();
    snapshot = stats;
  }
  map_done.notify_all();
  lock.unlock();
  engine->cancel_all();
}

void EngineThread::State::take_mail(std::unique_lock<std::mutex>& lock) {
  if (submits.empty() && cancels.empty() && !stopping && !map_wanted && !engine->has_work()) {
    busy = false;
    idle.notify_all();
    const auto mail_there = [&] { return !submits.empty() || !cancels.empty() || map_wanted || stopping; };
    while (!mail_there()) {
      const bool more = engine->has_idle_work();  // asked first: the last look below sees how it ended
      lock.unlock();
      if (more) engine->idle();
      const EngineStats stats = engine->stats();
      lock.lock();
      snapshot = stats;
      if (!more) break;
      mail.wait_for(lock, kIdlePeriod, mail_there);
    }
    mail.wait(lock, mail_there);
  }
  busy = true;
  new_submits.swap(submits);
  new_cancels.swap(cancels);
  if (new_submits.empty() && new_cancels.empty() && !stopping) return;
  snapshot.queued += static_cast<int64_t>(new_submits.size());  // until the next step's count
  lock.unlock();
  for (Submit& submit : new_submits) add(submit);
  for (uint64_t id : new_cancels) engine->cancel(id);
  new_submits.clear();
  new_cancels.clear();
  const EngineStats stats = engine->stats();
  lock.lock();
  snapshot = stats;
}

void EngineThread::State::extend_map(std::unique_lock<std::mutex>& lock) {
  constexpr int32_t kPagesPerStep = 65536;  // some 200 microseconds
  lock.unlock();
  if (!next_map) {
    next_map = std::make_shared<PageMap>();
    map_next_page = 0;
  }
  bool done = false;
  try {
    done = engine->extend_page_map(*next_map, map_next_page, kPagesPerStep);
  } catch (const std::bad_alloc&) {
    next_map.reset();
    done = true;
  }
  lock.lock();
  if (!done) return;
  map = std::move(next_map);
  next_map.reset();
  map_wanted = false;
  ++maps_taken;
  map_done.notify_all();
}

void EngineThread::State::add(Submit& submit) {
  try {
    engine->add(submit.id, std::move(submit.request), submit.sink);
  } catch (const std::exception& e) {  // checked at submit: only memory can have run out
    log_error(fmt::format("request {} ends early: {}", submit.id, e.what()));
    Output output;
    output.request_id = submit.id;
    output.finish = FinishReason::kAbort;
    output.error = e.what();
    output.first = output.request_done = true;
    try {
      submit.sink(std::move(output));
    } catch (const std::exception& again) {
      log_error(fmt::format("request {}: its receiver failed: {}", submit.id, again.what()));
    }
  }
}

EngineThread::EngineThread(std::unique_ptr<Engine> engine) : state_(std::make_unique<State>(std::move(engine))) {
  state_->thread = std::thread([s = state_.get()] { s->loop(); });
}

EngineThread::~EngineThread() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->mail.notify_all();
  state_->thread.join();
}

int32_t EngineThread::max_context() const { return state_->engine->max_context(); }

uint64_t EngineThread::submit(Request request, OutputSink sink) {
  State& s = *state_;
  s.engine->check_request(request);
  uint64_t id;
  {
    std::lock_guard lock(s.mutex);
    if (s.draining || s.stopping) throw QueueFull("the server is shutting down");
    const int64_t limit = s.engine->config().max_queued;
    if (s.snapshot.queued + static_cast<int64_t>(s.submits.size()) >= limit)
      throw QueueFull(fmt::format("{} requests are waiting; ask again later", limit));
    id = s.next_id++;
    s.submits.push_back({id, std::move(request), std::move(sink)});
  }
  s.mail.notify_one();
  return id;
}

void EngineThread::cancel(uint64_t id) {
  {
    std::lock_guard lock(state_->mutex);
    state_->cancels.push_back(id);
  }
  state_->mail.notify_one();
}

EngineStats EngineThread::stats() const {
  std::lock_guard lock(state_->mutex);
  return state_->snapshot;
}

std::shared_ptr<const PageMap> EngineThread::page_map(double timeout_s) {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  const uint64_t taken = s.maps_taken;
  s.map_wanted = true;
  s.mail.notify_one();
  const auto there = [&] { return s.maps_taken != taken || s.stopping; };
  if (!s.map_done.wait_for(lock, std::chrono::duration<double>(timeout_s), there) || s.maps_taken == taken) return nullptr;
  return s.map;
}

bool EngineThread::drain(double timeout_s) {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  s.draining = true;
  const auto nothing_left = [&] { return !s.busy && s.submits.empty(); };
  return s.idle.wait_for(lock, std::chrono::duration<double>(timeout_s), nothing_left);
}

}  // namespace tinyserve
