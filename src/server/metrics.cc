#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <mutex>
#include <sstream>

namespace tinyserve {
namespace {

using Labels = std::map<std::string, std::string>;

const prometheus::Histogram::BucketBoundaries kFirstTokenBuckets = {
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
const prometheus::Histogram::BucketBoundaries kInterTokenBuckets = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5};
const prometheus::Histogram::BucketBoundaries kRequestBuckets = {0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5,
                                                                 5,    10,   15,  20,  30,  40,  50, 60,  120, 240};
const prometheus::Histogram::BucketBoundaries kTokenBuckets = {1,   2,    5,    10,   20,    50,    100,   200,
                                                               500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

}  // namespace

struct ServerMetrics::State {
  explicit State(const std::string& model_name) : labels{{"model_name", model_name}} {}

  prometheus::Histogram& histogram(const char* name, const char* help,
                                   const prometheus::Histogram::BucketBoundaries& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
  }
  prometheus::Gauge& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
  }
  prometheus::Counter& counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
  }

  prometheus::Registry registry;
  Labels labels;
  prometheus::Histogram& first_token =
      histogram("tinyserve:time_to_first_token_seconds", "From arrival to the first token.", kFirstTokenBuckets);
  prometheus::Histogram& inter_token =
      histogram("tinyserve:inter_token_latency_seconds", "Between tokens of one choice.", kInterTokenBuckets);
  prometheus::Histogram& e2e =
      histogram("tinyserve:e2e_request_latency_seconds", "From arrival to the last token.", kRequestBuckets);
  prometheus::Histogram& queue_time =
      histogram("tinyserve:request_queue_time_seconds", "From arrival to the first step.", kRequestBuckets);
  prometheus::Histogram& prompt_length =
      histogram("tinyserve:request_prompt_tokens", "Prompt tokens per request.", kTokenBuckets);
  prometheus::Histogram& answer_length =
      histogram("tinyserve:request_generation_tokens", "Generated tokens per request.", kTokenBuckets);
  prometheus::Gauge& running = gauge("tinyserve:num_requests_running", "Sequences in the running batch.");
  prometheus::Gauge& waiting = gauge("tinyserve:num_requests_waiting", "Requests queued or preempted.");
  prometheus::Gauge& kv_usage =
      gauge("tinyserve:kv_cache_usage_perc", "Share of KV pages in use by sequences, 0 to 1.");
  prometheus::Gauge& kv_pages = gauge("tinyserve:kv_cache_pages", "KV pages there are.");
  prometheus::Gauge& kv_pages_used = gauge("tinyserve:kv_cache_pages_used", "KV pages sequences hold.");
  prometheus::Gauge& kv_pages_cached =
      gauge("tinyserve:kv_cache_pages_cached", "KV pages nobody holds whose content is kept for prefix hits.");
  prometheus::Family<prometheus::Gauge>& fragmentation_family =
      prometheus::BuildGauge()
          .Name("tinyserve:kv_fragmentation")
          .Help("Fragmentation of K/V memory; docs/kv-memory.md says what each kind means.")
          .Register(registry);
  prometheus::Gauge& fragmentation(const char* kind) {
    Labels with = labels;
    with["kind"] = kind;
    return fragmentation_family.Add(with);
  }
  prometheus::Gauge& spatial = fragmentation("spatial");
  prometheus::Gauge& temporal = fragmentation("temporal");
  prometheus::Gauge& access = fragmentation("access");
  prometheus::Gauge& total = fragmentation("total");
  prometheus::Gauge& external = fragmentation("external");
  prometheus::Gauge& free_runs = gauge("tinyserve:kv_free_runs", "Runs of KV pages that no sequence holds.");
  prometheus::Gauge& largest_run = gauge("tinyserve:kv_largest_free_run_pages", "Pages of the longest of these.");
  prometheus::Gauge& descriptors =
      gauge("tinyserve:kv_descriptors_per_sequence", "Physical runs a sequence's pages are in, mean.");
  prometheus::Gauge& run_bytes = gauge("tinyserve:kv_bytes_per_run", "Bytes of K/V in such a run, mean.");
  prometheus::Gauge& slots =
      gauge("tinyserve:kv_slot_utilisation", "Filled token slots of the slots of used KV pages, 0 to 1.");
  prometheus::Counter& growths = counter("tinyserve:kv_growths_total", "Times that a sequence in progress got more pages.");
  prometheus::Counter& contiguous_growths =
      counter("tinyserve:kv_growths_contiguous_total", "Of these, those that got the page right behind its last one.");
  prometheus::Counter& moved = counter("tinyserve:kv_compaction_pages_moved_total", "KV pages that compaction moved.");
  prometheus::Counter& discarded =
      counter("tinyserve:kv_compaction_pages_discarded_total", "Cached KV pages given up to make room for such moves.");
  prometheus::Counter& compaction_seconds =
      counter("tinyserve:kv_compaction_seconds_total", "Time compaction took, planning and copying.");
  // With the tier as a label: "device" is the pool itself, "recompute" is none.
  template <typename Metric>
  Metric& of_tier(prometheus::Family<Metric>& family, const char* tier) {
    Labels with = labels;
    with["tier"] = tier;
    return family.Add(with);
  }
  prometheus::Family<prometheus::Gauge>& tier_pages_family =
      prometheus::BuildGauge().Name("tinyserve:kv_tier_pages").Help("KV pages a tier below the pool holds.").Register(registry);
  prometheus::Gauge& host_pages = of_tier(tier_pages_family, "host");
  prometheus::Gauge& disk_pages = of_tier(tier_pages_family, "disk");
  prometheus::Family<prometheus::Gauge>& tier_room_family = prometheus::BuildGauge()
                                                                .Name("tinyserve:kv_tier_max_pages")
                                                                .Help("KV pages a tier may hold; 0: there is no such tier.")
                                                                .Register(registry);
  prometheus::Gauge& host_room = of_tier(tier_room_family, "host");
  prometheus::Gauge& disk_room = of_tier(tier_room_family, "disk");
  prometheus::Family<prometheus::Counter>& tier_hits_family =
      prometheus::BuildCounter()
          .Name("tinyserve:kv_tier_hit_pages_total")
          .Help("KV pages that admitted requests got, by where they came from.")
          .Register(registry);
  prometheus::Counter& device_hits = of_tier(tier_hits_family, "device");
  prometheus::Counter& host_hits = of_tier(tier_hits_family, "host");
  prometheus::Counter& disk_hits = of_tier(tier_hits_family, "disk");
  prometheus::Counter& recomputed = of_tier(tier_hits_family, "recompute");
  prometheus::Family<prometheus::Counter>& tier_bytes_family =
      prometheus::BuildCounter()
          .Name("tinyserve:kv_tier_bytes_total")
          .Help("K/V bytes moved to (down) and from (up) a tier.")
          .Register(registry);
  prometheus::Family<prometheus::Counter>& tier_transfers_family =
      prometheus::BuildCounter()
          .Name("tinyserve:kv_tier_transfers_total")
          .Help("Contiguous copies to (down) and from (up) a tier; bytes by this are bytes per transfer.")
          .Register(registry);
  prometheus::Family<prometheus::Counter>& tier_seconds_family =
      prometheus::BuildCounter()
          .Name("tinyserve:kv_tier_transfer_seconds_total")
          .Help("Time those copies took; bytes by this are the bandwidth.")
          .Register(registry);
  struct Transfers {
    prometheus::Counter &bytes, &transfers, &seconds;
  };
  Transfers tier_copies(const char* tier, const char* direction) {
    Labels with = labels;
    with["tier"] = tier;
    with["direction"] = direction;
    return {tier_bytes_family.Add(with), tier_transfers_family.Add(with), tier_seconds_family.Add(with)};
  }
  Transfers host_down = tier_copies("host", "down");
  Transfers host_up = tier_copies("host", "up");
  Transfers disk_down = tier_copies("disk", "down");
  Transfers disk_up = tier_copies("disk", "up");
  prometheus::Family<prometheus::Gauge>& tier_cost_family =
      prometheus::BuildGauge()
          .Name("tinyserve:kv_tier_page_seconds")
          .Help("Measured cost of a KV page from a tier; \"recompute\" is that of its tokens in a prompt. 0: not measured yet.")
          .Register(registry);
  prometheus::Gauge& host_cost = of_tier(tier_cost_family, "host");
  prometheus::Gauge& disk_cost = of_tier(tier_cost_family, "disk");
  prometheus::Gauge& compute_cost = of_tier(tier_cost_family, "recompute");
  prometheus::Gauge& large_copy =
      gauge("tinyserve:kv_large_copy_bytes_per_second", "One large copy from the pool's memory to the host's, when the server started.");
  prometheus::Gauge& tier_found = gauge("tinyserve:kv_disk_pages_found", "Pages the disk file held when it was opened.");
  prometheus::Gauge& tier_queued = gauge("tinyserve:kv_disk_queued_bytes", "Bytes waiting to be written to the disk file.");
  prometheus::Gauge& tier_loading = gauge("tinyserve:kv_tier_loading", "Requests waiting for pages from the disk file.");
  prometheus::Counter& tier_lost =
      counter("tinyserve:kv_tier_lost_pages_total", "KV pages given up that no tier took: not worth it, or no room.");
  prometheus::Counter& tier_refused = counter("tinyserve:kv_tier_refused_pages_total",
                                              "KV pages that were in a tier, but dearer to bring back than to compute again.");
  prometheus::Counter& disk_corrupt =
      counter("tinyserve:kv_disk_corrupt_pages_total", "Pages of the disk file that were not what was written.");
  prometheus::Counter& disk_errors = counter("tinyserve:kv_disk_errors_total", "Failed reads and writes of the disk file.");
  prometheus::Gauge& connections = gauge("tinyserve:http_connections", "Open HTTP connections.");
  prometheus::Counter& prompt_tokens = counter("tinyserve:prompt_tokens_total", "Prompt tokens taken.");
  prometheus::Counter& generated_tokens = counter("tinyserve:generation_tokens_total", "Tokens generated.");
  prometheus::Counter& prefix_queries =
      counter("tinyserve:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.");
  prometheus::Counter& prefix_hits =
      counter("tinyserve:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.");
  prometheus::Counter& preemptions =
      counter("tinyserve:num_preemptions_total", "Times a sequence gave up its pages to be computed again.");
  prometheus::Counter& selected_reads = counter("tinyserve:selection_reads_total",
                                               "Times a query read one KV head of a layer by selection instead of densely.");
  prometheus::Counter& selected_bytes = counter("tinyserve:selection_bytes_total", "Bytes of K, V and codes that these read.");
  prometheus::Counter& selected_dense =
      counter("tinyserve:selection_dense_bytes_total", "Bytes of K and V that dense attention would have read in their place.");
  prometheus::Counter& selected_estimated = counter("tinyserve:selection_estimated_total",
                                                   "Sum of the shares of attention that were estimated, not read; over selection_reads_total the mean.");
  prometheus::Counter& audited_reads =
      counter("tinyserve:selection_audited_reads_total",
              "Of selection_reads_total those that were audited, of answers that have ended.");
  prometheus::Counter& audit_draws =
      counter("tinyserve:selection_audit_draws_total", "Pages and tokens whose true weights audits looked up.");
  prometheus::Gauge& audited_share =
      gauge("tinyserve:selection_audited_estimated_share",
            "Audited true share of attention that was estimated, not read: mean over all audited reads.");
  prometheus::Gauge& audited_error =
      gauge("tinyserve:selection_audited_error",
            "Audited true share of what was estimated less what the answers counted for it.");
  prometheus::Gauge& audited_error_half =
      gauge("tinyserve:selection_audited_error_half_width",
            "Half the width of its 95% confidence interval; the share's has the same.");
  prometheus::Gauge& coded_error =
      gauge("tinyserve:selection_audited_coded_error", "The same error of what was read in codes.");
  prometheus::Gauge& coded_error_half =
      gauge("tinyserve:selection_audited_coded_error_half_width", "Half the width of its 95% confidence interval.");
  prometheus::Counter& dense_reads =
      counter("tinyserve:selection_dense_checks_total", "Audited reads that were recomputed densely (--audit-dense).");
  prometheus::Gauge& dense_share = gauge("tinyserve:selection_dense_estimated_share",
                                         "True share of attention that was estimated, mean over dense checks.");
  prometheus::Gauge& dense_output_error = gauge("tinyserve:selection_dense_output_error",
                                                "|output - dense output| / |dense output|, mean over dense checks.");
  prometheus::Counter& steps = counter("tinyserve:engine_steps_total", "Steps of the engine.");
  prometheus::Family<prometheus::Counter>& success = prometheus::BuildCounter()
                                                         .Name("tinyserve:request_success_total")
                                                         .Help("Requests ended, by reason.")
                                                         .Register(registry);
  prometheus::Family<prometheus::Counter>& http = prometheus::BuildCounter()
                                                      .Name("tinyserve:http_requests_total")
                                                      .Help("HTTP answers, by route and status.")
                                                      .Register(registry);

  void show_audit(const AuditSums& audit);

  std::mutex scrape;  // two scrapes at once must not both add the same growth
  EngineStats last;   // engine counters as of the last scrape
};

ServerMetrics::ServerMetrics(const std::string& model_name) : state_(std::make_unique<State>(model_name)) {
  for (const char* reason : {"stop", "length", "abort"}) {
    Labels labels = state_->labels;
    labels["finished_reason"] = reason;
    state_->success.Add(labels);  // there from the start, so that rates of it are right
  }
}

ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::State::show_audit(const AuditSums& a) {
  AuditSums& before = last.selection.audit;
  const auto grow = [](prometheus::Counter& counter, int64_t now, int64_t was) {
    if (now > was) counter.Increment(static_cast<double>(now - was));
  };
  grow(audited_reads, a.reads, before.reads);
  grow(audit_draws, a.estimated_error.draws + a.coded_error.draws,
       before.estimated_error.draws + before.coded_error.draws);
  grow(dense_reads, a.checked, before.checked);
  if (a.reads < before.reads) return;
  before = a;
  const Interval error = a.estimated_error.interval(a.reads), coded = a.coded_error.interval(a.reads);
  const auto mean = [](double sum, int64_t n) { return n > 0 ? sum / static_cast<double>(n) : 0; };
  audited_share.Set(mean(a.estimated, a.reads) + error.mean);
  audited_error.Set(error.mean);
  audited_error_half.Set((error.high - error.low) / 2);
  coded_error.Set(coded.mean);
  coded_error_half.Set((coded.high - coded.low) / 2);
  dense_share.Set(mean(a.true_estimated, a.checked));
  dense_output_error.Set(mean(a.output_error, a.checked));
}

void ServerMetrics::on_queue_time(double seconds) { state_->queue_time.Observe(seconds); }
void ServerMetrics::on_first_token(double seconds) { state_->first_token.Observe(seconds); }
void ServerMetrics::on_inter_token(double seconds) { state_->inter_token.Observe(seconds); }

void ServerMetrics::on_finish(double seconds, int64_t prompt_tokens, int64_t generated_tokens, const char* reason) {
  state_->e2e.Observe(seconds);
  state_->prompt_length.Observe(static_cast<double>(prompt_tokens));
  state_->answer_length.Observe(static_cast<double>(generated_tokens));
  Labels labels = state_->labels;
  labels["finished_reason"] = reason;
  state_->success.Add(labels).Increment();
}

void ServerMetrics::count_http(std::string_view path, int status) {
  state_->http.Add({{"path", std::string(path)}, {"status", std::to_string(status)}}).Increment();
}

std::string ServerMetrics::text(const EngineStats& stats, int64_t connections) {
  State& s = *state_;
  const std::lock_guard lock(s.scrape);
  s.running.Set(static_cast<double>(stats.running));
  s.waiting.Set(static_cast<double>(stats.waiting));
  s.kv_usage.Set(stats.pages_total > 0 ? static_cast<double>(stats.pages_used) / static_cast<double>(stats.pages_total)
                                       : 0);
  s.kv_pages.Set(static_cast<double>(stats.pages_total));
  s.kv_pages_used.Set(static_cast<double>(stats.pages_used));
  s.kv_pages_cached.Set(static_cast<double>(stats.pages_cached));
  const FragmentationReport& f = stats.fragmentation;
  s.spatial.Set(f.spatial);
  s.temporal.Set(f.temporal);
  s.access.Set(f.access);
  s.total.Set(f.total);
  s.external.Set(f.external);
  s.free_runs.Set(f.free_runs);
  s.largest_run.Set(f.largest_run);
  s.descriptors.Set(f.descriptors_per_sequence);
  s.run_bytes.Set(f.bytes_per_run);
  s.slots.Set(f.slot_utilisation);
  const TierStats& t = stats.tiers;
  s.host_pages.Set(static_cast<double>(t.host_pages));
  s.host_room.Set(static_cast<double>(t.host_max_pages));
  s.disk_pages.Set(static_cast<double>(t.disk.pages));
  s.disk_room.Set(static_cast<double>(t.disk.max_pages));
  s.tier_found.Set(static_cast<double>(t.disk.pages_found));
  s.tier_queued.Set(static_cast<double>(t.disk.queued_bytes));
  s.tier_loading.Set(static_cast<double>(t.loading));
  s.host_cost.Set(t.host_s_per_page);
  s.disk_cost.Set(t.disk_s_per_page);
  s.compute_cost.Set(t.recompute_s_per_page);
  s.large_copy.Set(t.large_copy_gb_per_s * 1e9);
  s.connections.Set(static_cast<double>(connections));
  // The engine counts for itself; here only what it grew by since the last time is added.
  const auto grow = [](prometheus::Counter& counter, uint64_t now, uint64_t& before) {
    if (now > before) counter.Increment(static_cast<double>(now - before));
    before = std::max(now, before);
  };
  grow(s.prompt_tokens, stats.prompt_tokens, s.last.prompt_tokens);
  grow(s.generated_tokens, stats.generated_tokens, s.last.generated_tokens);
  grow(s.prefix_queries, stats.prefix_query_tokens, s.last.prefix_query_tokens);
  grow(s.prefix_hits, stats.prefix_hit_tokens, s.last.prefix_hit_tokens);
  grow(s.preemptions, stats.preemptions, s.last.preemptions);
  grow(s.steps, stats.steps, s.last.steps);
  const auto grow_by = [](prometheus::Counter& counter, double now, double& before) {
    if (now > before) counter.Increment(now - before);
    before = std::max(now, before);
  };
  SelectionAccount& read = s.last.selection;
  if (stats.selection.reads > read.reads) s.selected_reads.Increment(static_cast<double>(stats.selection.reads - read.reads));
  read.reads = std::max(read.reads, stats.selection.reads);
  grow_by(s.selected_bytes, stats.selection.bytes, read.bytes);
  grow_by(s.selected_dense, stats.selection.dense_bytes, read.dense_bytes);
  grow_by(s.selected_estimated, stats.selection.estimated_share, read.estimated_share);
  s.show_audit(stats.selection.audit);
  grow(s.growths, f.growths, s.last.fragmentation.growths);
  grow(s.contiguous_growths, f.contiguous_growths, s.last.fragmentation.contiguous_growths);
  grow(s.moved, stats.compaction.pages_moved, s.last.compaction.pages_moved);
  grow(s.discarded, stats.compaction.pages_discarded, s.last.compaction.pages_discarded);
  TierStats& before = s.last.tiers;
  grow(s.device_hits, t.pool_hit_pages, before.pool_hit_pages);
  grow(s.host_hits, t.host_hit_pages, before.host_hit_pages);
  grow(s.disk_hits, t.disk_hit_pages, before.disk_hit_pages);
  grow(s.recomputed, t.recomputed_pages, before.recomputed_pages);
  const auto copies = [&grow](const State::Transfers& counters, const TransferStats& now, TransferStats& last) {
    grow(counters.bytes, now.bytes, last.bytes);
    grow(counters.transfers, now.transfers, last.transfers);
    if (now.seconds > last.seconds) counters.seconds.Increment(now.seconds - last.seconds);
    last.seconds = std::max(last.seconds, now.seconds);
  };
  copies(s.host_down, t.host_down, before.host_down);
  copies(s.host_up, t.host_up, before.host_up);
  copies(s.disk_down, t.disk.written, before.disk.written);
  copies(s.disk_up, t.disk.read, before.disk.read);
  grow(s.tier_lost, t.pages_lost, before.pages_lost);
  grow(s.tier_refused, t.refused_by_cost, before.refused_by_cost);
  grow(s.disk_corrupt, t.disk.corrupt, before.disk.corrupt);
  grow(s.disk_errors, t.disk.write_errors, before.disk.write_errors);
  grow(s.disk_errors, t.disk.read_errors, before.disk.read_errors);
  if (stats.compaction.seconds > s.last.compaction.seconds) {
    s.compaction_seconds.Increment(stats.compaction.seconds - s.last.compaction.seconds);
    s.last.compaction.seconds = stats.compaction.seconds;
  }
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, s.registry.Collect());
  return out.str();
}

}  // namespace tinyserve
