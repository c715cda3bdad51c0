#pragma once
#include <cstdint>
#include <string>

namespace tinyserve {

/// Which attention a server or an evaluation uses beyond a length, and what it may read. Tokens are per query and KV head.
struct SelectionConfig {
  std::string policy = "full";  ///< a name of policy_names()
  int32_t budget = 256;         ///< tokens read exactly, beside the first page and the newest
  int32_t coded = 512;          ///< further tokens whose values are read as 3-bit codes (tinyserve)
  int32_t from = 4096;          ///< contexts of fewer tokens attend densely
  // What the budget is instead, of which at most one is not 0 (selection_request.h):
  float budget_share = 0;       ///< of the tokens a query sees; `coded` grows with it
  float top_p = 0;              ///< of `budget` tokens only the fewest best that have this share of the attention
  float epsilon = 0;            ///< moved by feedback so that this share of the attention is estimated
  bool audit = true;            ///< of every sparse read (audit.h)
  float audit_dense = 0;        ///< of (query, layer), what share is also recomputed densely
  bool value_codes = true;      ///< keep codes of values; without, `coded` tokens' values are read as they are
  int32_t fine_divisor = 3;     ///< pages that have one of the best tokens, one in so many, have their keys' fine codes read
  int32_t sinks = 1, recent = 1;  ///< pages at the start, full pages at the end, that are always read exactly

  std::string maps_file;          ///< of the model's maps; empty: whoever sets up looks for it or has them fitted

  bool active() const { return policy != "full"; }
};

}  // namespace tinyserve
