#pragma once
// The engine: one thread owns all state. Engine is that state and its step; EngineThread (engine_thread.h) puts a
// thread and a thread-safe front around it.

#include <memory>
#include <string>

#include "engine/observer.h"
#include "engine/request.h"
#include "kv/kv_config.h"
#include "kv/tiers/tiers_config.h"
#include "model/model.h"
#include "select/selection_config.h"
#include "select/selection_maps.h"

namespace tinyserve {

class Tokenizer;
class TokenText;
struct MemoryPlan;
struct PageMap;

struct EngineConfig {
  int32_t page_size = 16;
  int64_t kv_bytes = 0;           ///< memory for K/V pages; 0: a share of free memory, as `info` prints
  int64_t num_pages = 0;          ///< overrides kv_bytes when > 0
  int32_t max_context = 0;        ///< prompt + answer; 0: the model's, limited by the pool
  int32_t max_running = 64;       ///< sequences in a step
  int32_t max_step_tokens = 512;  ///< rows of a step: decodes first, prefill chunks with what is left
  /// Rows of prompts in a step that also decodes: small keeps the time between tokens short while a long prompt comes
  /// in, large brings its first token sooner.
  int32_t max_prefill_with_decodes = 128;
  int32_t max_queued = 1024;  ///< requests waiting; more are refused (429)
  KvConfig kv;
  TiersConfig tiers;  ///< below the pages; need the prefix cache
  SelectionConfig selection;                  ///< how answers attend to long contexts; prompts are computed densely
  std::shared_ptr<const SelectionMaps> maps;  ///< the model's, for policies with codes
};

class Engine {
 public:
  /// model, tokenizer and observer outlive the engine. Allocates everything a step needs.
  Engine(Model& model, ops::Ops& ops, const Tokenizer& tokenizer, const EngineConfig& config, EngineObserver* observer);
  /// The same with token texts from elsewhere.
  Engine(Model& model, ops::Ops& ops, const TokenText& texts, const EngineConfig& config, EngineObserver* observer);
  ~Engine();

  /// Longest prompt + answer a request may have.
  int32_t max_context() const;
  const EngineConfig& config() const;
  const MemoryPlan& memory() const;
  /// Throws InputError as add() would. Reads only what never changes: any thread may call it at any time.
  void check_request(const Request& request) const;
  /// Takes a request; throws InputError when it can never run (too long, bad sampling) and QueueFull when the queue is.
  void add(uint64_t id, Request request, OutputSink sink);
  /// Ends a request; its pages are free again when this returns. Its sink hears kAbort unless it had finished. Unknown
  /// ids are ignored.
  void cancel(uint64_t id);
  /// Cancels every request.
  void cancel_all();
  /// Does the first thing that can be done; false when there is nothing to do. When all there is waits for a tier, that is
  /// what it does, for some milliseconds.
  bool step();
  /// There is something to be done between requests: idle() should be called now and then.
  bool has_idle_work() const;
  void idle();
  /// Requests waiting or running.
  bool has_work() const;
  EngineStats stats() const;
  /// Adds up to `count` pages to a map begun empty; true when it is complete. Between steps.
  bool extend_page_map(PageMap& map, int32_t& next_page, int32_t count) const;
  /// TS_CHECKs that every page reference belongs to a running sequence and all books agree. For tests, between steps.
  void check_invariants() const;

 private:
  struct State;
  std::unique_ptr<const TokenText> token_text_;  // null when it came from elsewhere
  std::unique_ptr<State> state_;
};

}  // namespace tinyserve
