#pragma once
#include <cstdint>
#include <stdexcept>

#include "kv/kv_report.h"
#include "kv/tiers/tier_stats.h"
#include "select/selector.h"

namespace tinyserve {

/// The queue is at its limit; ask again later (HTTP 429).
class QueueFull : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A picture of the engine at one moment. Counters only grow.
struct EngineStats {
  int64_t running = 0;  ///< sequences
  int64_t waiting = 0;  ///< sequences queued or preempted
  int64_t queued = 0;   ///< requests that have not been in a step; EngineConfig::max_queued limits these
  int64_t pages_total = 0;
  int64_t pages_used = 0;    ///< referenced by a sequence
  int64_t pages_cached = 0;  ///< unreferenced, content kept for prefix hits
  uint64_t prompt_tokens = 0;
  uint64_t generated_tokens = 0;
  uint64_t prefix_query_tokens = 0;  ///< prompt tokens looked up in the prefix cache
  uint64_t prefix_hit_tokens = 0;
  uint64_t preemptions = 0;
  uint64_t steps = 0;
  FragmentationReport fragmentation;
  CompactionStats compaction;
  TierStats tiers;  ///< all 0 without tiers
  SelectionAccount selection;  ///< of all requests
};

/// Hears about times as they happen, on the engine's thread; must not block. Seconds.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void on_queue_time(double seconds) { (void)seconds; }   ///< arrival to first scheduling
  virtual void on_first_token(double seconds) { (void)seconds; }  ///< arrival to first token
  virtual void on_inter_token(double seconds) { (void)seconds; }  ///< between tokens of one choice
  /// A request and all its choices are done; generated tokens are summed, the reason is the last choice's: "stop",
  /// "length" or "abort".
  virtual void on_finish(double seconds, int64_t prompt_tokens, int64_t generated_tokens, const char* reason) {
    (void)seconds, (void)prompt_tokens, (void)generated_tokens, (void)reason;
  }
  virtual void on_step(const EngineStats& stats) { (void)stats; }
};

}  // namespace tinyserve
