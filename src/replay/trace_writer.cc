#include "replay/trace_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "kv/page_hash.h"

namespace tinyserve::replay {
namespace {

constexpr size_t kMaxUnwritten = size_t{256} << 20;  // bytes; a disk that slow ends the recording, not the serving

HashKey random_key() {
  std::random_device device;
  return {uint64_t{device()} << 32 | device(), uint64_t{device()} << 32 | device()};
}

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

/// The file and its own thread, so that nobody waits for a disk.
struct TraceWriter::State {
  State(const std::filesystem::path& p, int32_t size) : path(p.string()), page_size(size), key(random_key()), hasher(key) {}

  /// Puts {"t":now, + rest into the file; the time is taken here, so that lines are in its order.
  void line(const std::string& rest) {
    const std::lock_guard lock(mutex);
    if (failed || stopping) return;
    unwritten += fmt::format("{{\"t\":{:.6f},{}\n", now_s() - start_s, rest);
    if (unwritten.size() > kMaxUnwritten) fail("the disk is too slow");
    work.notify_one();
  }
  void fail(std::string_view why) {
    failed = true;
    unwritten.clear();
    log_error(fmt::format("{}: the recording ends here: {}", path, why));
  }
  void run();

  const std::string path;
  const int32_t page_size;
  const HashKey key;
  const PageHasher hasher;
  const double start_s = now_s();
  int file = -1;
  std::mutex mutex;  // of all below
  std::condition_variable work;
  std::string unwritten;
  uint64_t next_id = 1;
  bool stopping = false, failed = false;
  std::thread thread;
};

void TraceWriter::State::run() {
  std::string batch;
  for (std::unique_lock lock(mutex);;) {
    work.wait(lock, [&] { return stopping || !unwritten.empty(); });
    if (unwritten.empty()) return;
    batch.clear();
    batch.swap(unwritten);
    lock.unlock();
    const char* why = nullptr;
    for (size_t done = 0; done < batch.size() && !why;) {
      const ssize_t n = write(file, batch.data() + done, batch.size() - done);
      if (n >= 0) done += static_cast<size_t>(n);
      else if (errno != EINTR) why = std::strerror(errno);
    }
    lock.lock();
    if (why && !failed) fail(why);
  }
}

namespace {

/// Names of full pages of tokens that come a few at a time, as JSON strings.
class PageNames {
 public:
  PageNames(const PageHasher& hasher, const PageHash& root, int32_t page_size) : hasher_(hasher), last_(root), page_size_(static_cast<size_t>(page_size)) {}

  void add(std::span<const int32_t> tokens) {
    while (!tokens.empty()) {
      if (part_.empty() && tokens.size() >= page_size_) {
        name(tokens.first(page_size_));
        tokens = tokens.subspan(page_size_);
        continue;
      }
      const size_t n = std::min(tokens.size(), page_size_ - part_.size());
      part_.insert(part_.end(), tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(n));
      tokens = tokens.subspan(n);
      if (part_.size() < page_size_) return;
      name(part_);
      part_.clear();
    }
  }
  /// A member of a JSON object with the names since the last call, or nothing.
  std::string take() {
    std::string member = text_.empty() ? "" : ",\"pages\":[" + text_ + "]";
    text_.clear();
    return member;
  }

 private:
  void name(std::span<const int32_t> page) {
    last_ = hasher_.chain(last_, page);
    text_ += fmt::format("{}\"{:016x}\"", text_.empty() ? "" : ",", last_.low);
  }

  const PageHasher& hasher_;
  PageHash last_;
  size_t page_size_;
  std::vector<int32_t> part_;  // of a page
  std::string text_;
};

}  // namespace

TraceWriter::TraceWriter(const std::filesystem::path& path, int32_t page_size) : state_(std::make_shared<State>(path, page_size)) {
  State& s = *state_;
  s.file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (s.file < 0 && errno == EEXIST)
    throw InputError(fmt::format("{}: is there already; a trace cannot be added to, so name another file or move this one", s.path));
  if (s.file < 0) throw InputError(fmt::format("{}: {}", s.path, std::strerror(errno)));
  s.unwritten = fmt::format("{{\"format\":\"tinyserve-trace\",\"version\":1,\"page_size\":{}}}\n", page_size);
  s.thread = std::thread([&s] { s.run(); });
}

TraceWriter::~TraceWriter() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->work.notify_one();
  state_->thread.join();
  close(state_->file);
}

struct RequestRecording final : TraceWriter::Recording {
  RequestRecording(std::shared_ptr<TraceWriter::State> s, std::span<const int32_t> prompt, int32_t limit, std::string_view salt);

  void accepted() override;
  void add(std::span<const int32_t> tokens) override;
  void end(bool cancelled) override;
  void write_end();

  const std::shared_ptr<TraceWriter::State> writer;
  std::mutex mutex;  // of all below
  uint64_t id = 0;
  std::string beginning;
  PageNames names;
  int64_t answer = 0;
  bool is_accepted = false, ended = false, cancelled = false;
};

namespace {

/// Names of one salt's pages say nothing about another's.
PageHash root_of(const HashKey& key, std::string_view salt) {
  return salt.empty() ? PageHash{} : siphash128(key, std::as_bytes(std::span(salt)));
}

}  // namespace

RequestRecording::RequestRecording(std::shared_ptr<TraceWriter::State> s, std::span<const int32_t> prompt, int32_t limit, std::string_view salt)
    : writer(std::move(s)), names(writer->hasher, root_of(writer->key, salt), writer->page_size) {
  names.add(prompt);
  beginning = fmt::format("\"prompt\":{}", prompt.size());
  if (limit > 0) beginning += fmt::format(",\"max_tokens\":{}", limit);
  beginning += names.take();
  if (!salt.empty()) beginning += fmt::format(",\"salt\":\"{:016x}\"", root_of(writer->key, salt).high);
}

void RequestRecording::accepted() {
  const std::lock_guard lock(mutex);
  {
    const std::lock_guard writer_lock(writer->mutex);
    id = writer->next_id++;
  }
  is_accepted = true;
  writer->line(fmt::format("\"id\":{},{}}}", id, beginning));
  beginning = {};
  if (ended) write_end();  // the engine was faster
}

void RequestRecording::add(std::span<const int32_t> tokens) {
  const std::lock_guard lock(mutex);
  names.add(tokens);
  answer += static_cast<int64_t>(tokens.size());
}

void RequestRecording::end(bool was_cancelled) {
  const std::lock_guard lock(mutex);
  if (ended) return;
  ended = true;
  cancelled = was_cancelled;
  if (is_accepted) write_end();
}

void RequestRecording::write_end() {
  writer->line(fmt::format("\"id\":{},\"answer\":{}{}{}}}", id, answer, names.take(), cancelled ? ",\"cancel\":true" : ""));
}

std::shared_ptr<TraceWriter::Recording> TraceWriter::begin(std::span<const int32_t> prompt, int32_t max_tokens, std::string_view salt) {
  return std::make_shared<RequestRecording>(state_, prompt, max_tokens, salt);
}

}  // namespace tinyserve::replay
