#include "cli/eval_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/svg_plot.h"

namespace tinyserve::cli {
namespace {

std::string tokens_text(const eval::ReadPolicy& policy) {
  if (!policy.make) return "-";
  const SequenceSelection& s = policy.selection;
  return policy.name == "tinyserve" ? fmt::format("{} + {}", s.exact, s.coded) : fmt::format("{}", s.exact);
}

std::string share_text(double share) { return share >= 1 ? "1" : fmt::format("1/{:.1f}", 1 / share); }

}  // namespace

const eval::TaskResult* TaskReport::full() const {
  const auto it = std::find_if(results.begin(), results.end(), [](const eval::TaskResult& r) { return r.policy.name == "full"; });
  return it == results.end() ? nullptr : &*it;
}

std::string task_table_head() {
  return "| task | context | policy | tokens | bytes read | correct | loss | ± | over full | ± |\n|---|---:|---|---:|---:|---:|---:|---:|---:|---:|\n";
}

std::string task_table_rows(const TaskReport& report) {
  std::string out;
  const eval::TaskResult* full = report.full();
  for (const eval::TaskResult& r : report.results) {
    const eval::Loss loss = r.loss();
    std::string over = "- | -";
    if (full && full != &r) {
      const eval::Loss d = eval::loss_difference(r, *full);
      over = fmt::format("{:+.4f} | {:.4f}", d.mean, d.standard_error);
    }
    out += fmt::format("| {} | {} | {} | {} | {} | {} of {} | {:.4f} | {:.4f} | {} |\n", report.task, report.context, r.policy.name, tokens_text(r.policy),
                       share_text(r.bytes_share()), r.correct, r.asked, loss.mean, loss.standard_error, over);
  }
  return out;
}

Json task_json(const TaskReport& report) {
  Json rows = Json::array();
  const eval::TaskResult* full = report.full();
  for (const eval::TaskResult& r : report.results) {
    const eval::Loss loss = r.loss();
    Json row{{"task", report.task}, {"context", report.context}, {"policy", r.policy.name}, {"budget", nullptr}, {"asked", r.asked}, {"correct", r.correct},
             {"tokens", loss.tokens}, {"loss", loss.mean}, {"loss_standard_error", loss.standard_error}, {"bytes_share", r.bytes_share()}, {"seconds", r.seconds}};
    if (r.policy.make) {
      const double reads = std::max(1.0, static_cast<double>(r.account.reads));
      row["budget"] = r.policy.selection.exact;
      row["coded"] = r.policy.selection.coded;
      row["bytes"] = r.account.bytes, row["dense_bytes"] = r.account.dense_bytes;
      row["shares"] = {{"exact", r.account.exact_share / reads}, {"coded", r.account.coded_share / reads}, {"estimated", r.account.estimated_share / reads}};
    }
    if (full && full != &r) {
      const eval::Loss d = eval::loss_difference(r, *full);
      row["loss_over_full"] = d.mean, row["loss_over_full_standard_error"] = d.standard_error;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string task_plot(const std::string& title, std::span<const TaskReport> reports) {
  std::vector<PlotPanel> panels;
  for (const TaskReport& report : reports) {
    const bool text = report.task == "ppl";
    PlotPanel panel{.y_label = fmt::format("{} {}: {}", report.task, report.context, text ? "loss" : "wrong answers"), .from_data = text};
    for (const eval::TaskResult& r : report.results) {
      auto line = std::find_if(panel.lines.begin(), panel.lines.end(), [&](const PlotLine& l) { return l.label == r.policy.name; });
      if (line == panel.lines.end()) line = panel.lines.insert(line, {.label = r.policy.name});
      line->points.emplace_back(r.bytes_share(), text ? r.loss().mean : static_cast<double>(r.asked - r.correct));
    }
    for (PlotLine& line : panel.lines) std::sort(line.points.begin(), line.points.end());
    panels.push_back(std::move(panel));
  }
  return plot_svg(title, "bytes of K and V read by a step, over dense attention's", panels, {.log_x = true, .markers = true});
}

}  // namespace tinyserve::cli
