#include "cli/bench_serve.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/bench_report.h"
#include "cli/progress.h"

namespace tinyserve::cli {

int run_serve_load(const LoadOptions& o, const std::string& server, const std::string& json) {
  fmt::print("{}\n", server);
  LoadResult r;
  {
    Progress progress("requests", o.requests);
    r = run_load(o, [&progress] { progress.add(); });
  }
  const double out_per_s = static_cast<double>(r.output_tokens) / r.wall_s;
  const double all_per_s = static_cast<double>(r.output_tokens + r.input_tokens) / r.wall_s;
  fmt::print("{} requests of {} in, {} out, {}: {} done, {} failed in {:.2f} s\n", o.requests, o.input_len, o.output_len,
             o.request_rate > 0 ? fmt::format("{} a second", o.request_rate) : fmt::format("{} at once", o.concurrency),
             r.completed, r.failed, r.wall_s);
  if (r.failed > 0) fmt::print("first failure: {}\n", r.first_error);
  fmt::print("{:.2f} requests/s, {:.1f} output tokens/s, {:.1f} tokens/s in all\n",
             static_cast<double>(r.completed) / r.wall_s, out_per_s, all_per_s);
  fmt::print("time to first token (TTFT), ms:   {}\n", summary_line(r.ttft_s, 1e3));
  fmt::print("between pieces (ITL), ms:         {}\n", summary_line(r.itl_s, 1e3));
  fmt::print("per token after first (TPOT), ms: {}\n", summary_line(r.tpot_s, 1e3));
  fmt::print("whole request, ms:                {}\n", summary_line(r.e2e_s, 1e3));
  if (!json.empty()) {
    const Json report = {{"benchmark", "serve"},
                         {"server", server},
                         {"requests", o.requests},
                         {"concurrency", o.concurrency},
                         {"request_rate", o.request_rate},
                         {"input_len", o.input_len},
                         {"output_len", o.output_len},
                         {"completed", r.completed},
                         {"failed", r.failed},
                         {"first_error", r.first_error},
                         {"wall_s", r.wall_s},
                         {"output_tokens", r.output_tokens},
                         {"requests_per_s", static_cast<double>(r.completed) / r.wall_s},
                         {"output_tokens_per_s", out_per_s},
                         {"total_tokens_per_s", all_per_s},
                         {"ttft_ms", summary_json(r.ttft_s, 1e3)},
                         {"itl_ms", summary_json(r.itl_s, 1e3)},
                         {"tpot_ms", summary_json(r.tpot_s, 1e3)},
                         {"e2e_ms", summary_json(r.e2e_s, 1e3)}};
    write_report(json, report);
  }
  return r.completed > 0 ? 0 : 1;
}

}  // namespace tinyserve::cli
