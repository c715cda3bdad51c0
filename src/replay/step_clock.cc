#include "replay/step_clock.h"

#include <fmt/format.h>

#include "base/error.h"
#include "engine/scheduler.h"

namespace tinyserve::replay {

double StepClock::step_s(const std::vector<StepItem>& items) const {
  int64_t prefill = 0, decode = 0, kv = 0;
  for (const StepItem& item : items) {
    // A single row at the end of what the sequence has is a decode; anything else is (part of) a prompt.
    const bool decodes = !item.admitted && item.num_tokens == 1 && item.samples;
    (decodes ? decode : prefill) += item.num_tokens;
    kv += item.start + item.num_tokens;
  }
  return fixed_us * 1e-6 + static_cast<double>(prefill) * prefill_token_us * 1e-6 +
         static_cast<double>(decode) * decode_token_us * 1e-6 + static_cast<double>(kv) * kv_token_ns * 1e-9;
}

StepClock step_clock(const std::string& name) {
  if (name == "h200")
    return {.fixed_us = 2500, .prefill_token_us = 12, .decode_token_us = 5, .kv_token_ns = 27, .kv_token_bytes = 114688};
  if (name == "cpu")
    return {.fixed_us = 300, .prefill_token_us = 150, .decode_token_us = 100, .kv_token_ns = 150, .kv_token_bytes = 4096};
  throw InputError(fmt::format("clock '{}' is not known; h200 and cpu are", name));
}

}  // namespace tinyserve::replay
