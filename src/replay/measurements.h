#pragma once
// What a replay finds out. One Measurements a policy.

#include <cstdint>
#include <string>
#include <vector>

namespace tinyserve::replay {

/// The pool at one moment. Shares are 0..1.
struct Sample {
  double time_s = 0;
  int32_t running = 0, waiting = 0;
  int32_t used = 0, cached = 0;  ///< pages; the others are empty
  int32_t free_runs = 0, largest_run = 0;
  double used_share = 0;              ///< used / pool
  double external_fragmentation = 0;  ///< 1 - largest run / free pages; 0 when none is free
  double descriptors = 0;             ///< mean over the running sequences: physical runs of their page tables
  double slot_utilisation = 0;        ///< filled token slots / slots of used pages
  double f_spatial = 0, f_temporal = 0, f_access = 0, f_total = 0;  ///< ALGORITHMS section 1 (kv/kv_report.h)
  double hit_rate = 0;                ///< prefix hits so far / prompt tokens looked up so far
};

/// Pages used over time, weighted by time, while anything ran.
struct Demand {
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, peak = 0;
};

struct Measurements {
  std::string policy;
  int32_t num_pages = 0;

  // The whole replay.
  int64_t requests = 0;   ///< in the trace
  int64_t completed = 0;  ///< ran to their end (cancelled ones included)
  int64_t too_long = 0;   ///< never fit the pool, whatever the policy
  int64_t refused = 0;    ///< allocations that failed although enough pages were free
  int64_t page_waits = 0; ///< times the queue's head found too few free pages
  int64_t preemptions = 0;
  double usable_share = 1;  ///< share of the pool in use when the first sequence was preempted; 1 when none was
  int64_t steps = 0;
  int64_t prompt_tokens = 0, hit_tokens = 0;  ///< looked up in the prefix cache, found
  int64_t computed_tokens = 0;                ///< rows of all steps, recomputation included
  int64_t growths = 0, contiguous_growths = 0;  ///< pages a decode added; those right behind the sequence's last
  int64_t allocated_pages = 0;
  double compaction_bytes = 0, compaction_won_bytes = 0;  ///< moved, cached content that made room included; of run length won
  double compaction_s = 0;                                ///< simulated, in busy_s
  double simulated_s = 0, busy_s = 0;  ///< of the simulated clock; busy: in steps
  double wall_s = 0;                   ///< what the replay took
  double cpu_s = 0;                    ///< of the processor for it
  double mean_ttft_s = 0, p99_ttft_s = 0;  ///< simulated, arrival to first token
  Demand demand;

  // Means over the samples of the steady state.
  int64_t steady_samples = 0;
  double descriptors_mean = 0, descriptors_p99 = 0;  ///< over running sequences and samples
  double descriptors_least = 0;  ///< the mean that sharing pages leaves possible: who goes on differently breaks off
  double pages_per_run = 0;                          ///< of running sequences
  double external_fragmentation = 0;
  double slot_utilisation = 0;
  double used_share = 0;
  double free_runs = 0;
  double f_spatial = 0, f_temporal = 0, f_access = 0, f_total = 0;

  std::vector<Sample> samples;

  double hit_rate() const { return prompt_tokens > 0 ? static_cast<double>(hit_tokens) / static_cast<double>(prompt_tokens) : 0; }
  double moved_per_won() const { return compaction_won_bytes > 0 ? compaction_bytes / compaction_won_bytes : 0; }
  double compaction_share() const { return busy_s > 0 ? compaction_s / busy_s : 0; }
  double growth_contiguous() const { return growths > 0 ? static_cast<double>(contiguous_growths) / static_cast<double>(growths) : 1; }
};

}  // namespace tinyserve::replay
