#pragma once
// A trace: when requests came, how long their prompts and answers were, and which parts of their prompts were the same
// text, without the text. docs/replay.md describes the formats.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace tinyserve::replay {

class LineReader;

struct TraceRequest {
  double arrival_s = 0;  ///< since the trace's beginning; never less than the request's before
  int32_t prompt = 0;    ///< tokens, at least 1
  int32_t answer = 0;    ///< tokens; 0: the prompt was only scored, or the client left before the first
  int32_t max_tokens = 0;  ///< the limit the client set for the answer; 0: none known
  double cancel_s = -1;  ///< the client left that long after arriving, before its answer's first token; -1: it did not
  uint64_t salt = 0;     ///< requests of one class may share pages; 0: the class of those without a salt
  uint32_t first_name = 0, num_names = 0;  ///< in Trace::names
};

struct Trace {
  std::string format;           ///< "mooncake", "azure" or "tinyserve"
  int32_t tokens_per_name = 0;  ///< 512 in Mooncake's traces; the recording server's page size in ours; 0: no names
  std::vector<TraceRequest> requests;
  int64_t unfinished = 0;  ///< requests left out because the recording stopped before they ended
  /// Of consecutive blocks of tokens from a request's beginning: the same name, the same tokens. Tokens beyond the
  /// named blocks are nobody else's.
  std::vector<uint64_t> names;

  std::span<const uint64_t> names_of(const TraceRequest& r) const { return {names.data() + r.first_name, r.num_names}; }
  double duration_s() const { return requests.empty() ? 0 : requests.back().arrival_s; }
  int64_t prompt_tokens() const;
  int64_t answer_tokens() const;
};

/// The longest prompt and answer a trace may have.
constexpr int64_t kMaxTraceTokens = int64_t{1} << 24;

/// Reads a trace in any of the formats; which one is seen from its first line. `max_requests` > 0 stops after so many.
/// Throws InputError with the file's name and the line's number.
Trace load_trace(const std::filesystem::path& path, int64_t max_requests = 0);
Trace parse_trace(LineReader& lines, int64_t max_requests = 0);

}  // namespace tinyserve::replay
