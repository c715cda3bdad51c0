#pragma once
// What one request asks of the server's selection, and what becomes of both.

#include <cstdint>
#include <optional>
#include <string>

#include "select/selection_config.h"

namespace tinyserve {

constexpr int32_t kMostBudget = 1 << 20;  ///< tokens; of `budget` and `coded`

/// What is absent is as the server's. Of budget, budget_share, top_p and epsilon one says what the budget is; only
/// top_p goes with budget, which is then the most it may take. None of them: the server's.
struct SelectionRequest {
  std::optional<std::string> policy;  ///< "full", or the server's
  std::optional<int32_t> budget, coded, from;
  std::optional<float> budget_share, top_p, epsilon;
  std::optional<bool> audit;
};

/// How one request attends.
struct SelectionTerms {
  bool dense = true;          ///< at any length; then the rest means nothing
  int32_t from = 0;           ///< contexts of fewer tokens attend densely
  int32_t exact = 0;          ///< tokens; the most with top_p, the first with epsilon
  int32_t coded = 0;          ///< tokens
  float exact_share = 0;      ///< above 0: `exact` is instead that share of the tokens a query sees
  float coded_per_exact = 0;  ///< above 0: `coded` is instead so many times the exact ones
  float top_p = 0;            ///< above 0: as SparseRow::top_p
  float epsilon = 0;          ///< above 0: the budget is moved by feedback
  bool audit = false;
};

/// The first thing wrong with a request, or with a server's own settings.
struct SelectionFault {
  std::string field;  ///< of SelectionRequest
  std::string why;    ///< a sentence about it
};

/// Nothing when the request can be served under `server`, which itself is sound. Ranges: budget from 1, coded and from
/// from 0; budget_share and top_p above 0 to 1; epsilon above 0 and below 1.
std::optional<SelectionFault> find_fault(const SelectionConfig& server, const SelectionRequest& request);
/// Nothing when the server's own settings go together.
std::optional<SelectionFault> find_fault(const SelectionConfig& server);
/// Of a request without fault.
SelectionTerms terms_of(const SelectionConfig& server, const SelectionRequest& request = {});

}  // namespace tinyserve
