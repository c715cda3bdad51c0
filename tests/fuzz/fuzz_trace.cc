// Traces of requests: any bytes are read to a trace whose numbers are in their ranges, or refused with InputError. What
// was read, if it is small, is replayed: nothing in it may break the scheduler or the pool.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "replay/line_reader.h"
#include "replay/simulation.h"
#include "replay/trace.h"

namespace {

using namespace tinyserve;

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const replay::Trace& trace) {
  require(!trace.requests.empty());
  double last_s = 0;
  for (const replay::TraceRequest& r : trace.requests) {
    require(r.prompt >= 1 && r.prompt <= replay::kMaxTraceTokens && r.answer >= 0 && r.answer <= replay::kMaxTraceTokens);
    require(r.max_tokens >= 0 && r.arrival_s >= last_s && r.arrival_s <= 1e9);
    require(size_t{r.first_name} + r.num_names <= trace.names.size());
    require(int64_t{r.num_names} * trace.tokens_per_name < int64_t{r.prompt} + r.answer + trace.tokens_per_name);
    last_s = r.arrival_s;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    replay::LineReader lines(replay::open_bytes(bytes), "trace");
    const replay::Trace trace = replay::parse_trace(lines);
    check(trace);
    if (trace.requests.size() > 50 || trace.prompt_tokens() + trace.answer_tokens() > 20'000) return 0;
    replay::SimulationConfig config;
    config.num_pages = 64;
    config.max_running = 4;
    config.max_step_tokens = 256;
    config.clock = {.fixed_us = 1000, .prefill_token_us = 10};
    config.num_samples = 10;
    const replay::Measurements m = replay::simulate(trace, config);
    require(m.completed + m.too_long == static_cast<int64_t>(trace.requests.size()));
  } catch (const InputError&) {
  }
  return 0;
}
