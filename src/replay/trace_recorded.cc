// The format `tinyserve serve --record-trace` writes (docs/replay.md): JSON lines in order of time, first
//   {"format":"tinyserve-trace","version":1,"page_size":16}
// then one line when a request comes and one when it ends:
//   {"t":0.512,"id":1,"prompt":70,"max_tokens":256,"pages":["90a1...","33fe...",...],"salt":"77ac..."}
//   {"t":2.250,"id":1,"answer":41,"pages":["..."]}        with "cancel":true when the client left
// The second line's pages go on where the first's end: they hold the end of the prompt and the answer.

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "replay/trace_builder.h"

namespace tinyserve::replay {
namespace {

class RecordedReader {
 public:
  RecordedReader(LineReader& lines, int32_t page_size) : lines_(lines), builder_(lines, "tinyserve", page_size) {}

  void read_line(std::string_view line) {
    const Json object = parse_line(lines_, line);
    const double time_s = time_member(lines_, object, "t", 1);
    if (!(time_s >= last_s_))
      builder_.fail(fmt::format("time goes backwards, from {} s to {} s: sort the trace by time", last_s_, time_s));
    last_s_ = time_s;
    const auto id = static_cast<uint64_t>(whole_member(lines_, object, "id", 0, int64_t{1} << 62));
    object.contains("prompt") ? begin(object, id, time_s) : end(object, id, time_s);
  }

  Trace finish();
  size_t size() const { return builder_.size(); }
  bool any_open() const { return !open_.empty(); }

 private:
  /// What the line of a request's end says, until it can stand beside that of its beginning.
  struct End {
    bool seen = false;
    std::vector<uint64_t> names;
  };

  void begin(const Json& object, uint64_t id, double time_s);
  void end(const Json& object, uint64_t id, double time_s);
  void read_pages(const Json& object, int64_t limit, std::vector<uint64_t>& out);
  uint64_t parse_name(const Json& value, const char* member);

  LineReader& lines_;
  TraceBuilder builder_;
  double last_s_ = 0;
  std::unordered_map<uint64_t, size_t> open_;  // id to index
  std::vector<End> ends_;
  std::vector<uint64_t> names_;  // scratch
};

uint64_t RecordedReader::parse_name(const Json& value, const char* member) {
  uint64_t name = 0;
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), name, 16);
    if (error == std::errc() && at == text.data() + text.size() && text.size() == 16) return name;
  }
  builder_.fail(fmt::format("\"{}\" must hold strings of 16 hexadecimal digits", member));
}

void RecordedReader::read_pages(const Json& object, int64_t limit, std::vector<uint64_t>& out) {
  out.clear();
  const auto pages = object.find("pages");
  if (pages == object.end()) return;
  if (!pages->is_array()) builder_.fail("\"pages\" must be an array");
  if (static_cast<int64_t>(pages->size()) > limit)
    builder_.fail(fmt::format("\"pages\" has {} entries, more than the {} full pages there are", pages->size(), limit));
  for (const Json& page : *pages) out.push_back(parse_name(page, "pages"));
}

void RecordedReader::begin(const Json& object, uint64_t id, double time_s) {
  const int64_t none = 0;
  const int64_t prompt = whole_member(lines_, object, "prompt", 1, kMaxTraceTokens);
  const int64_t max_tokens = whole_member(lines_, object, "max_tokens", 0, kMaxTraceTokens, &none);
  if (!open_.try_emplace(id, builder_.size()).second) builder_.fail(fmt::format("request {} begins twice", id));
  read_pages(object, prompt / builder_.trace().tokens_per_name, names_);
  TraceRequest& r = builder_.add(time_s, prompt, 0);
  r.max_tokens = static_cast<int32_t>(max_tokens);
  if (const auto salt = object.find("salt"); salt != object.end()) r.salt = parse_name(*salt, "salt");
  for (const uint64_t name : names_) builder_.name(name);
  ends_.emplace_back();
}

void RecordedReader::end(const Json& object, uint64_t id, double time_s) {
  const auto found = open_.find(id);
  if (found == open_.end()) builder_.fail(fmt::format("request {} ends, but did not begin", id));
  TraceRequest& r = builder_.at(found->second);
  End& end = ends_[found->second];
  open_.erase(found);
  r.answer = static_cast<int32_t>(whole_member(lines_, object, "answer", 0, kMaxTraceTokens));
  const auto cancel = object.find("cancel");
  if (cancel != object.end() && !cancel->is_boolean()) builder_.fail("\"cancel\" must be true or false");
  if (cancel != object.end() && cancel->get<bool>() && r.answer == 0) r.cancel_s = time_s - r.arrival_s;
  const int64_t full = (int64_t{r.prompt} + r.answer) / builder_.trace().tokens_per_name;
  read_pages(object, full - r.num_names, end.names);
  end.seen = true;
}

/// Requests that had not ended when the recording did are left out: how long their answers became is not known.
Trace RecordedReader::finish() {
  Trace& from = builder_.trace();
  Trace to{.format = from.format, .tokens_per_name = from.tokens_per_name};
  for (size_t i = 0; i < from.requests.size(); ++i) {
    if (!ends_[i].seen) {
      ++to.unfinished;
      continue;
    }
    TraceRequest r = from.requests[i];
    const auto names = from.names_of(r);
    r.first_name = static_cast<uint32_t>(to.names.size());
    r.num_names += static_cast<uint32_t>(ends_[i].names.size());
    to.names.insert(to.names.end(), names.begin(), names.end());
    to.names.insert(to.names.end(), ends_[i].names.begin(), ends_[i].names.end());
    to.requests.push_back(r);
  }
  return to;
}

}  // namespace

Trace read_recorded(LineReader& lines, std::string_view first, int64_t max_requests) {
  const Json header = parse_line(lines, first);
  const auto format = header.find("format");
  if (!format->is_string() || *format != "tinyserve-trace")
    throw InputError(lines.where() + "\"format\" must be \"tinyserve-trace\"");
  if (whole_member(lines, header, "version", 0, 1 << 20) != 1)
    throw InputError(lines.where() + "this version of the format is not known; 1 is");
  RecordedReader reader(lines, static_cast<int32_t>(whole_member(lines, header, "page_size", 1, 1 << 16)));
  for (std::string_view line; lines.next(line);) {
    if (!lines.had_end()) break;  // torn: the server was killed, or the disk was full
    if (!line.empty()) reader.read_line(line);
    if (static_cast<int64_t>(reader.size()) == max_requests && !reader.any_open()) break;
  }
  return reader.finish();
}

}  // namespace tinyserve::replay
