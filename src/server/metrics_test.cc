#include "server/metrics.h"

#include <gmock/gmock.h>

namespace tinyserve {
namespace {

using ::testing::HasSubstr;

TEST(ServerMetrics, NamesAndValues) {
  ServerMetrics metrics("m");
  metrics.on_queue_time(0.02);
  metrics.on_first_token(0.2);
  metrics.on_inter_token(0.003);
  metrics.on_inter_token(0.004);
  metrics.on_finish(1.5, 100, 20, "stop");
  metrics.count_http("/v1/models", 200);
  metrics.count_http("/v1/models", 200);
  EngineStats stats;
  stats.running = 3, stats.waiting = 2, stats.pages_total = 8, stats.pages_used = 2, stats.pages_cached = 1;
  stats.prompt_tokens = 10, stats.generated_tokens = 5, stats.prefix_query_tokens = 9, stats.prefix_hit_tokens = 4,
  stats.preemptions = 1;
  stats.tiers.host_pages = 11, stats.tiers.disk.max_pages = 22, stats.tiers.disk_hit_pages = 33;
  stats.tiers.host_down = {.pages = 1, .bytes = 44, .transfers = 4, .seconds = 0.5};
  stats.tiers.disk.read = {.pages = 2, .bytes = 88, .transfers = 1, .seconds = 0.25};
  stats.tiers.host_s_per_page = 0.5, stats.tiers.recompute_s_per_page = 0.75, stats.tiers.large_copy_gb_per_s = 2;
  stats.tiers.disk.write_errors = 2, stats.tiers.disk.read_errors = 3;
  metrics.text(stats, 7);
  stats.generated_tokens = 12;
  const std::string text = metrics.text(stats, 7);
  for (const char* line : {
           "tinyserve:time_to_first_token_seconds_bucket{model_name=\"m\",le=\"0.25\"} 1",
           "tinyserve:inter_token_latency_seconds_count{model_name=\"m\"} 2",
           "tinyserve:e2e_request_latency_seconds_sum{model_name=\"m\"} 1.5",
           "tinyserve:request_queue_time_seconds_count{model_name=\"m\"} 1",
           "tinyserve:request_success_total{finished_reason=\"stop\",model_name=\"m\"} 1",
           "tinyserve:request_success_total{finished_reason=\"length\",model_name=\"m\"} 0",
           "tinyserve:num_requests_running{model_name=\"m\"} 3",
           "tinyserve:num_requests_waiting{model_name=\"m\"} 2",
           "tinyserve:kv_cache_usage_perc{model_name=\"m\"} 0.25",
           "tinyserve:prompt_tokens_total{model_name=\"m\"} 10",
           "tinyserve:generation_tokens_total{model_name=\"m\"} 12",
           "tinyserve:prefix_cache_queries_total{model_name=\"m\"} 9",
           "tinyserve:prefix_cache_hits_total{model_name=\"m\"} 4",
           "tinyserve:num_preemptions_total{model_name=\"m\"} 1",
           "tinyserve:http_requests_total{path=\"/v1/models\",status=\"200\"} 2",
           "tinyserve:kv_tier_pages{model_name=\"m\",tier=\"host\"} 11",
           "tinyserve:kv_tier_max_pages{model_name=\"m\",tier=\"disk\"} 22",
           "tinyserve:kv_tier_hit_pages_total{model_name=\"m\",tier=\"disk\"} 33",
           "tinyserve:kv_tier_bytes_total{direction=\"down\",model_name=\"m\",tier=\"host\"} 44",
           "tinyserve:kv_tier_transfers_total{direction=\"down\",model_name=\"m\",tier=\"host\"} 4",
           "tinyserve:kv_tier_transfer_seconds_total{direction=\"down\",model_name=\"m\",tier=\"host\"} 0.5",
           "tinyserve:kv_tier_bytes_total{direction=\"up\",model_name=\"m\",tier=\"disk\"} 88",
           "tinyserve:kv_tier_transfer_seconds_total{direction=\"up\",model_name=\"m\",tier=\"disk\"} 0.25",
           "tinyserve:kv_tier_page_seconds{model_name=\"m\",tier=\"host\"} 0.5",
           "tinyserve:kv_tier_page_seconds{model_name=\"m\",tier=\"recompute\"} 0.75",
           "tinyserve:kv_large_copy_bytes_per_second{model_name=\"m\"} 2000000000",
           "tinyserve:kv_disk_errors_total{model_name=\"m\"} 5",
           "tinyserve:http_connections{model_name=\"m\"} 7",
           "# TYPE tinyserve:time_to_first_token_seconds histogram",
       })
    EXPECT_THAT(text, HasSubstr(line));
}

TEST(ServerMetrics, WhatSelectionReadAndAuditsFound) {
  ServerMetrics metrics("m");
  EngineStats stats;
  EXPECT_THAT(metrics.text(stats, 0), HasSubstr("tinyserve:selection_reads_total{model_name=\"m\"} 0"));
  stats.selection = {
      .reads = 8, .bytes = 100, .dense_bytes = 1000, .exact_share = 6, .coded_share = 1, .estimated_share = 1};
  AuditSums& audit = stats.selection.audit;
  audit.reads = 4, audit.estimated = 0.5;
  audit.estimated_error = {.draws = 3, .sum = 0.5, .variance = 0.25, .freedom = 0.0625};  // one degree of freedom
  audit.coded_error = {.draws = 4, .sum = -1, .variance = 0, .freedom = 0};
  audit.checked = 2, audit.true_estimated = 0.5, audit.output_error = 0.25;
  metrics.text(stats, 0);
  stats.selection.reads = 10, stats.selection.bytes = 150;
  const std::string text = metrics.text(stats, 0);
  for (const char* line : {
           "tinyserve:selection_reads_total{model_name=\"m\"} 10",
           "tinyserve:selection_bytes_total{model_name=\"m\"} 150",
           "tinyserve:selection_dense_bytes_total{model_name=\"m\"} 1000",
           "tinyserve:selection_estimated_total{model_name=\"m\"} 1",
           "tinyserve:selection_audited_reads_total{model_name=\"m\"} 4",
           "tinyserve:selection_audit_draws_total{model_name=\"m\"} 7",
           "tinyserve:selection_audited_estimated_share{model_name=\"m\"} 0.25",
           "tinyserve:selection_audited_error{model_name=\"m\"} 0.125",
           "tinyserve:selection_audited_error_half_width{model_name=\"m\"} 1.58",
           "tinyserve:selection_audited_coded_error{model_name=\"m\"} -0.25",
           "tinyserve:selection_audited_coded_error_half_width{model_name=\"m\"} 0",
           "tinyserve:selection_dense_checks_total{model_name=\"m\"} 2",
           "tinyserve:selection_dense_estimated_share{model_name=\"m\"} 0.25",
           "tinyserve:selection_dense_output_error{model_name=\"m\"} 0.125",
       })
    EXPECT_THAT(text, HasSubstr(line));
}

}  // namespace
}  // namespace tinyserve
