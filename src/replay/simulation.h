#pragma once
// Replays a trace on the engine's scheduler, page pool and prefix cache, without a model: a simulated clock says how
// long each step takes, and answers have the trace's length. Everything about pages is the engine's own code.

#include <cstdint>
#include <functional>

#include "kv/kv_config.h"
#include "replay/measurements.h"
#include "replay/step_clock.h"
#include "replay/trace.h"

namespace tinyserve::replay {

struct SimulationConfig {
  KvConfig kv;  ///< placement policy, prefix cache and all else the engine can be told about its pages
  int32_t num_pages = 0;
  int32_t page_size = 16;
  int32_t max_running = 256;
  int32_t max_step_tokens = 8192;
  int32_t max_prefill_with_decodes = 2048;
  int32_t max_tokens = 4096;  ///< limit of an answer that clients set, where the trace does not say
  double speed = 1;           ///< arrivals come that many times faster than in the trace
  StepClock clock;
  int32_t num_samples = 500;    ///< evenly over the arrivals
  double warm_up_share = 0.1;   ///< of the arrivals' time, before the steady state
  uint64_t seed = 1;
  bool check_every_step = false;  ///< TS_CHECK all books after every step, O(pages); for tests
};

/// Called now and then with the number of requests done; may be called from the simulation's thread only.
using OnProgress = std::function<void(int64_t done)>;

/// Throws InputError when the configuration cannot work with the trace.
Measurements simulate(const Trace& trace, const SimulationConfig& config, const OnProgress& on_progress = {});

/// Pages that no load of this trace can exceed: those of its largest max_running requests, and what admission keeps free.
int32_t unlimited_pages(const Trace& trace, const SimulationConfig& config);

}  // namespace tinyserve::replay
