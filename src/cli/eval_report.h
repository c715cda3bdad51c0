#pragma once
// What `eval` shows of tasks: a table, JSON, and a picture of quality against bytes.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "eval/task_run.h"

namespace tinyserve::cli {

/// Results of one task at one context, one for each policy.
struct TaskReport {
  std::string task;
  int32_t context = 0;
  std::vector<eval::TaskResult> results;
  /// The one that reads everything, if it ran.
  const eval::TaskResult* full() const;
};

std::string task_table_head();
/// A row for each result; what the table does not have for it is "-".
std::string task_table_rows(const TaskReport& report);
/// An array with an object for each result.
Json task_json(const TaskReport& report);
/// A panel for each task and context: of running text the loss, of the others answers that were wrong, over the share of bytes
/// read; a line for each policy, a point for each budget.
std::string task_plot(const std::string& title, std::span<const TaskReport> reports);

}  // namespace tinyserve::cli
