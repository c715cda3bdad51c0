#pragma once
// What /metrics tells, under vLLM's names with the prefix "tinyserve:" instead of "vllm:", and per-path HTTP counts.

#include <memory>
#include <string>
#include <string_view>

#include "engine/observer.h"

namespace tinyserve {

/// Make one before the engine (it is the engine's observer) and give it to the server. Thread safe.
class ServerMetrics : public EngineObserver {
 public:
  /// `model_name` is the label of every engine series.
  explicit ServerMetrics(const std::string& model_name);
  ~ServerMetrics() override;

  void on_queue_time(double seconds) override;
  void on_first_token(double seconds) override;
  void on_inter_token(double seconds) override;
  void on_finish(double seconds, int64_t prompt_tokens, int64_t generated_tokens, const char* reason) override;

  /// `path` is one of the server's own routes or "other"; anything else would let clients make series.
  void count_http(std::string_view path, int status);
  /// Prometheus text. `stats` is the engine now, `connections` the open ones.
  std::string text(const EngineStats& stats, int64_t connections);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tinyserve
