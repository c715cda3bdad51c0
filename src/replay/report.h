#pragma once
#include <string>
#include <vector>

#include "base/json.h"
#include "replay/measurements.h"
#include "replay/simulation.h"
#include "replay/trace.h"

namespace tinyserve::replay {

/// The figures of each policy in a column of its own, and in brackets the ratio to `free_queue` where that is among
/// them. Markdown, which is readable as it stands.
std::string table(const std::vector<Measurements>& all);

/// Everything, samples included.
Json to_json(const Trace& trace, const SimulationConfig& config, const std::vector<Measurements>& all);

/// Fragmentation over time, a line a policy, as SVG.
std::string plot(const std::vector<Measurements>& all);

}  // namespace tinyserve::replay
