#pragma once
#include <cstdint>

#include "engine/engine.h"
#include "kv/kv_shape.h"

namespace tinyserve {

/// How memory is divided; what `info` prints. Bytes and tokens.
struct MemoryPlan {
  int64_t weight_bytes = 0;
  int64_t kv_token_bytes = 0;  ///< K and V of a token, all layers
  int64_t code_page_bytes = 0;  ///< of kv_page_bytes, what codes take
  int64_t kv_page_bytes = 0;
  int32_t num_pages = 0;
  int64_t kv_bytes = 0;         ///< of all pages; resident as they are first used
  int64_t kv_tokens = 0;        ///< that fit, over all sequences
  int32_t max_context = 0;      ///< of one request: prompt and answer
  int64_t available_bytes = 0;  ///< what the system had when asked
};

/// Bytes this process can still take: MemAvailable, and what is left under its control group's limit.
int64_t available_memory();

/// Divides memory as Engine does. With kv_bytes = 0 the pool gets what max_running requests of max_context tokens need,
/// but no more than half of `available_bytes` (less what the host tier may take), and beyond 4 GiB only as much as two such requests need. Throws
/// InputError when not even one page fits, or when the context asked for does not fit the pool or the model.
MemoryPlan plan_memory(const KvShape& shape, int32_t model_max_positions, int64_t weight_bytes,
                       const EngineConfig& config, int64_t available_bytes, const CodeShape& codes = {});
/// The codes that pages need under `config`'s policy.
CodeShape code_shape(const EngineConfig& config);

}  // namespace tinyserve
