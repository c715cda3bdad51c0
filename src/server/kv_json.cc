#include "server/kv_json.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <iterator>

#include "kv/page_map.h"

namespace tinyserve {

std::string page_map_body(const PageMap& map) {
  std::array<int64_t, 3> pages{};
  for (const PageSpan& span : map.spans) pages[static_cast<size_t>(span.state)] += span.length;
  const FragmentationReport& f = map.fragmentation;
  const CompactionStats& c = map.compaction;
  std::string out;
  out.reserve(2048 + 24 * map.spans.size());
  auto to = std::back_inserter(out);
  fmt::format_to(to, R"({{"num_pages":{},"page_size":{},"page_bytes":{},"first_step":{},"last_step":{},)", map.num_pages,
                 map.page_size, map.page_bytes, map.first_step, map.last_step);
  fmt::format_to(to, R"("used":{},"cached":{},"empty":{},)", pages[0], pages[1], pages[2]);
  fmt::format_to(to,
                 R"("fragmentation":{{"spatial":{:.6g},"temporal":{:.6g},"access":{:.6g},"total":{:.6g},"external":{:.6g},)"
                 R"("free_runs":{},"largest_run":{},"sequences":{},"descriptors":{},"descriptors_per_sequence":{:.6g},)"
                 R"("pages_per_run":{:.6g},"bytes_per_run":{:.6g},"slot_utilisation":{:.6g},)"
                 R"("growths":{},"contiguous_growths":{}}},)",
                 f.spatial, f.temporal, f.access, f.total, f.external, f.free_runs, f.largest_run, f.sequences,
                 f.descriptors, f.descriptors_per_sequence, f.pages_per_run, f.bytes_per_run, f.slot_utilisation,
                 f.growths, f.contiguous_growths);
  fmt::format_to(to,
                 R"("compaction":{{"pages_moved":{},"pages_displaced":{},"pages_discarded":{},"pages_won":{:.6g},"jobs":{},)"
                 R"("rests":{},"failed_copies":{},"seconds":{:.6g}}},)",
                 c.pages_moved, c.pages_displaced, c.pages_discarded, c.pages_won, c.jobs, c.rests, c.failed_copies,
                 c.seconds);
  const TierStats& t = map.tiers;
  const auto transfers = [&](const char* name, const TransferStats& s) {
    fmt::format_to(to, R"("{}":{{"pages":{},"bytes":{},"transfers":{},"bytes_per_transfer":{:.6g},"gb_per_s":{:.6g}}},)", name,
                   s.pages, s.bytes, s.transfers, s.bytes_per_transfer(), s.gb_per_s());
  };
  out += R"("tiers":{)";
  transfers("host_down", t.host_down);
  transfers("host_up", t.host_up);
  transfers("disk_written", t.disk.written);
  transfers("disk_read", t.disk.read);
  transfers("disk_up", t.disk_up);
  fmt::format_to(to,
                 R"("host":{{"pages":{},"max_pages":{},"evicted":{}}},)"
                 R"("disk":{{"pages":{},"max_pages":{},"found":{},"evicted":{},"turned_away":{},"corrupt":{},)"
                 R"("queued_bytes":{},"write_errors":{},"read_errors":{}}},)",
                 t.host_pages, t.host_max_pages, t.host_evicted, t.disk.pages, t.disk.max_pages, t.disk.pages_found,
                 t.disk.evicted, t.disk.turned_away, t.disk.corrupt, t.disk.queued_bytes, t.disk.write_errors,
                 t.disk.read_errors);
  fmt::format_to(to,
                 R"("hit_pages":{{"device":{},"host":{},"disk":{},"recompute":{}}},"lost_pages":{},"refused_by_cost":{},)"
                 R"("reads_given_up":{},"loading":{},"prefill_s_per_token":{:.6g},"host_s_per_page":{:.6g},)"
                 R"("disk_s_per_page":{:.6g},"recompute_s_per_page":{:.6g},"large_copy_gb_per_s":{:.6g}}},)",
                 t.pool_hit_pages, t.host_hit_pages, t.disk_hit_pages, t.recomputed_pages, t.pages_lost, t.refused_by_cost,
                 t.reads_given_up, t.loading, t.prefill_s_per_token, t.host_s_per_page, t.disk_s_per_page,
                 t.recompute_s_per_page, t.large_copy_gb_per_s);
  out += R"("columns":["length","state","owner","references","heat"],"pages":[)";
  for (size_t i = 0; i < map.spans.size(); ++i) {
    const PageSpan& s = map.spans[i];
    if (i > 0) out += ',';
    if (s.state == PageState::kEmpty)
      fmt::format_to(to, "[{},\"e\"]", s.length);
    else
      fmt::format_to(to, "[{},\"{}\",{},{},{}]", s.length, s.state == PageState::kUsed ? 'u' : 'c', s.owner, s.references,
                     s.heat);
  }
  out += "]}";
  return out;
}

}  // namespace tinyserve
