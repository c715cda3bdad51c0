// Mooncake's traces (github.com/kvcache-ai/Mooncake, FAST25-release): JSON lines
//   {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, ...]}
// timestamp in milliseconds, lengths in tokens, one hash id for each block of 512 prompt tokens (the last may be
// shorter). Equal ids are equal blocks after equal blocks.

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "replay/trace_builder.h"

namespace tinyserve::replay {
namespace {

constexpr int32_t kBlockTokens = 512;

void read_line(TraceBuilder& builder, const LineReader& lines, std::string_view line) {
  const Json object = parse_line(lines, line);
  const int64_t prompt = whole_member(lines, object, "input_length", 1, kMaxTraceTokens);
  const int64_t answer = whole_member(lines, object, "output_length", 0, kMaxTraceTokens);
  const auto ids = object.find("hash_ids");
  if (ids == object.end() || !ids->is_array()) builder.fail("\"hash_ids\" must be an array");
  const int64_t blocks = (prompt + kBlockTokens - 1) / kBlockTokens;
  if (static_cast<int64_t>(ids->size()) != blocks)
    builder.fail(fmt::format("\"hash_ids\" has {} entries; {} tokens are {} blocks of {}", ids->size(), prompt, blocks, kBlockTokens));
  builder.add(time_member(lines, object, "timestamp", 1e-3), prompt, answer);
  for (const Json& id : *ids) {
    if (!id.is_number_unsigned()) builder.fail("\"hash_ids\" must be whole numbers from 0");
    builder.name(id.get<uint64_t>());
  }
}

}  // namespace

Trace read_mooncake(LineReader& lines, std::string_view first, int64_t max_requests) {
  TraceBuilder builder(lines, "mooncake", kBlockTokens);
  for (std::string_view line = first;;) {
    if (!line.empty()) read_line(builder, lines, line);
    if (static_cast<int64_t>(builder.size()) == max_requests || !lines.next(line)) return builder.finish();
  }
}

}  // namespace tinyserve::replay
