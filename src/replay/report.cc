#include "replay/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/svg_plot.h"

namespace tinyserve::replay {
namespace {

constexpr const char* kBaseline = "free_queue";

struct Row {
  const char* label;
  const char* json;
  std::function<double(const Measurements&)> value;
  int decimals;
  bool percent = false, ratio = false;
};

const std::vector<Row>& rows() {
  using M = Measurements;
  static const std::vector<Row> kRows = {
      {"descriptors per sequence, mean", "descriptors_mean", [](const M& m) { return m.descriptors_mean; }, 2, false, true},
      {"the least that sharing allows", "descriptors_least", [](const M& m) { return m.descriptors_least; }, 2},
      {"descriptors per sequence, p99", "descriptors_p99", [](const M& m) { return m.descriptors_p99; }, 0, false, true},
      {"pages per run of a sequence", "pages_per_run", [](const M& m) { return m.pages_per_run; }, 1, false, true},
      {"external fragmentation", "external_fragmentation", [](const M& m) { return m.external_fragmentation; }, 3, false, true},
      {"F_total", "f_total", [](const M& m) { return m.f_total; }, 3, false, true},
      {"F_spatial", "f_spatial", [](const M& m) { return m.f_spatial; }, 3, false, true},
      {"F_temporal", "f_temporal", [](const M& m) { return m.f_temporal; }, 4, false, true},
      {"F_access", "f_access", [](const M& m) { return m.f_access; }, 4, false, true},
      {"free runs", "free_runs", [](const M& m) { return m.free_runs; }, 0, false, true},
      {"growth kept contiguous", "growth_contiguous", [](const M& m) { return m.growth_contiguous(); }, 2, true},
      {"compaction: bytes moved per byte won", "moved_per_won", [](const M& m) { return m.moved_per_won(); }, 2},
      {"compaction: share of the time", "compaction_share", [](const M& m) { return m.compaction_share(); }, 2, true},
      {"slot utilisation", "slot_utilisation", [](const M& m) { return m.slot_utilisation; }, 2, true},
      {"pool in use, mean", "used_share", [](const M& m) { return m.used_share; }, 1, true},
      {"prefix hit rate", "hit_rate", [](const M& m) { return m.hit_rate(); }, 2, true},
      {"requests completed", "completed", [](const M& m) { return static_cast<double>(m.completed); }, 0},
      {"refused though pages were free", "refused", [](const M& m) { return static_cast<double>(m.refused); }, 0},
      {"waits for pages at admission", "page_waits", [](const M& m) { return static_cast<double>(m.page_waits); }, 0},
      {"preemptions", "preemptions", [](const M& m) { return static_cast<double>(m.preemptions); }, 0},
      {"pool used before the first", "usable_share", [](const M& m) { return m.usable_share; }, 1, true},
      {"time to first token, mean (s, simulated)", "mean_ttft_s", [](const M& m) { return m.mean_ttft_s; }, 2},
      {"simulated time / CPU time", "speed", [](const M& m) { return m.cpu_s > 0 ? m.simulated_s / m.cpu_s : 0; }, 0},
  };
  return kRows;
}

std::string cell(const Row& row, const Measurements& m, const Measurements* baseline) {
  const double v = row.value(m);
  std::string text = row.percent ? fmt::format("{:.{}f}%", 100 * v, row.decimals) : fmt::format("{:.{}f}", v, row.decimals);
  if (!row.ratio || !baseline || baseline == &m) return text;
  const double base = row.value(*baseline);
  return base == 0 ? text : text + fmt::format(" ({:.2f}x)", v / base);
}

}  // namespace

std::string table(const std::vector<Measurements>& all) {
  const auto found = std::find_if(all.begin(), all.end(), [](auto& m) { return m.policy == kBaseline; });
  const Measurements* baseline = found == all.end() ? nullptr : &*found;
  std::vector<std::vector<std::string>> lines;
  lines.push_back({""});
  for (const Measurements& m : all) lines.back().push_back(m.policy);
  for (const Row& row : rows()) {
    lines.push_back({row.label});
    for (const Measurements& m : all) lines.back().push_back(cell(row, m, baseline));
  }
  std::vector<size_t> widths(all.size() + 1, 3);
  for (const auto& line : lines)
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  std::string out;
  for (size_t l = 0; l < lines.size(); ++l) {
    for (size_t i = 0; i < lines[l].size(); ++i)
      out += i == 0 ? fmt::format("| {:<{}} |", lines[l][i], widths[i]) : fmt::format(" {:>{}} |", lines[l][i], widths[i]);
    out += '\n';
    if (l > 0) continue;
    for (size_t i = 0; i < widths.size(); ++i)
      out += i == 0 ? fmt::format("|{:-<{}}|", "", widths[i] + 2) : fmt::format("{:-<{}}:|", "", widths[i] + 1);
    out += '\n';
  }
  return out;
}

std::string plot(const std::vector<Measurements>& all) {
  const auto panel = [&](const char* label, double Sample::* value, bool log_y, double y_max) {
    PlotPanel p{.y_label = label, .log_y = log_y, .y_max = y_max};
    for (const Measurements& m : all) {
      p.lines.push_back({.label = m.policy});
      for (const Sample& s : m.samples) p.lines.back().points.emplace_back(s.time_s, s.*value);
    }
    return p;
  };
  return plot_svg(fmt::format("Fragmentation over time, pool of {} pages", all.empty() ? 0 : all.front().num_pages),
                  "time (s, simulated)",
                  {panel("external fragmentation", &Sample::external_fragmentation, false, 1),
                   panel("F_total", &Sample::f_total, true, 0),
                   panel("descriptors per sequence", &Sample::descriptors, true, 0),
                   panel("pages in use / pool", &Sample::used_share, false, 1)});
}

Json to_json(const Trace& trace, const SimulationConfig& config, const std::vector<Measurements>& all) {
  Json policies = Json::array();
  for (const Measurements& m : all) {
    Json p{{"policy", m.policy}, {"pages", m.num_pages}, {"requests", m.requests}, {"too_long", m.too_long}, {"steps", m.steps},
           {"prompt_tokens", m.prompt_tokens}, {"hit_tokens", m.hit_tokens}, {"computed_tokens", m.computed_tokens},
           {"growths", m.growths}, {"contiguous_growths", m.contiguous_growths}, {"allocated_pages", m.allocated_pages},
           {"simulated_s", m.simulated_s}, {"busy_s", m.busy_s}, {"compaction_bytes", m.compaction_bytes}, {"compaction_won_bytes", m.compaction_won_bytes}, {"compaction_s", m.compaction_s},
           {"wall_s", m.wall_s}, {"cpu_s", m.cpu_s}, {"p99_ttft_s", m.p99_ttft_s},
           {"steady_samples", m.steady_samples},
           {"used_pages", {{"mean", m.demand.mean}, {"p50", m.demand.p50}, {"p90", m.demand.p90}, {"p99", m.demand.p99}, {"peak", m.demand.peak}}}};
    for (const Row& row : rows()) p[row.json] = row.value(m);
    Json& samples = p["samples"] = Json::array();
    for (const Sample& s : m.samples)
      samples.push_back({{"time_s", s.time_s}, {"running", s.running}, {"waiting", s.waiting}, {"used", s.used}, {"cached", s.cached},
                         {"free_runs", s.free_runs}, {"largest_run", s.largest_run},
                         {"external_fragmentation", s.external_fragmentation}, {"descriptors", s.descriptors}, {"f_spatial", s.f_spatial}, {"f_temporal", s.f_temporal}, {"f_access", s.f_access},
                         {"f_total", s.f_total},
                         {"slot_utilisation", s.slot_utilisation}, {"hit_rate", s.hit_rate}});
    policies.push_back(std::move(p));
  }
  return {{"trace", {{"format", trace.format}, {"requests", trace.requests.size()}, {"prompt_tokens", trace.prompt_tokens()},
                     {"answer_tokens", trace.answer_tokens()}, {"duration_s", trace.duration_s()}, {"unfinished", trace.unfinished}}},
          {"config", {{"page_size", config.page_size}, {"max_running", config.max_running}, {"max_step_tokens", config.max_step_tokens},
                      {"max_prefill_with_decodes", config.max_prefill_with_decodes}, {"prefix_cache", prefix_policy_name(config.kv.prefix.policy)},
                      {"max_tokens", config.max_tokens}, {"speed", config.speed}, {"seed", config.seed},
                      {"clock", {{"fixed_us", config.clock.fixed_us}, {"prefill_token_us", config.clock.prefill_token_us},
                                 {"decode_token_us", config.clock.decode_token_us}, {"kv_token_ns", config.clock.kv_token_ns}}}}},
          {"policies", std::move(policies)}};
}

}  // namespace tinyserve::replay
