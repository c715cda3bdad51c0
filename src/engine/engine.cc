#include "engine/engine.h"

#include "engine/engine_state.h"
#include "kv/page_map.h"
#include "text/tokenizer.h"

namespace tinyserve {
namespace {

constexpr double kWait_s = 0.002;  // for a tier, before requests and cancels are looked at again

class TokenizerText final : public TokenText {
 public:
  explicit TokenizerText(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string token_bytes(int32_t id) const override { return tokenizer_.token_bytes(id); }
  bool is_special(int32_t id) const override { return tokenizer_.is_special(id); }

 private:
  const Tokenizer& tokenizer_;
};

}  // namespace

Engine::Engine(Model& model, ops::Ops& ops, const Tokenizer& tokenizer, const EngineConfig& config,
               EngineObserver* observer)
    : token_text_(std::make_unique<TokenizerText>(tokenizer)),
      state_(std::make_unique<State>(model, ops, *token_text_, config, observer)) {}

Engine::Engine(Model& model, ops::Ops& ops, const TokenText& texts, const EngineConfig& config,
               EngineObserver* observer)
    : state_(std::make_unique<State>(model, ops, texts, config, observer)) {}

Engine::~Engine() = default;

int32_t Engine::max_context() const { return state_->memory.max_context; }
const EngineConfig& Engine::config() const { return state_->config; }
const MemoryPlan& Engine::memory() const { return state_->memory; }

void Engine::check_request(const Request& request) const { state_->check(request); }

void Engine::add(uint64_t id, Request request, OutputSink sink) {
  state_->add(id, std::move(request), std::move(sink));
}

void Engine::cancel(uint64_t id) {
  const auto found = state_->requests.find(id);
  if (found == state_->requests.end()) return;
  state_->abort(*found->second, "");
  state_->reap();
}

void Engine::cancel_all() {
  for (auto& [id, request] : state_->requests) state_->abort(*request, "");
  state_->reap();
}

bool Engine::step() {
  State& s = *state_;
  if (!s.plan_step()) {  // decodes, then chunks of prompts, then newcomers; pages are reserved
    s.reap();            // planning may have failed and ended somebody
    if (!s.tiers || !s.tiers->loading()) return false;
    s.tiers->wait(kWait_s);
    return true;
  }
  s.run_step();                      // one forward pass; tokens are picked, outputs sent
  s.reap();
  s.observer->on_step(s.stats());
  return true;
}

bool Engine::has_idle_work() const { return state_->tiers && state_->tiers->writing(); }
void Engine::idle() {
  if (state_->tiers) state_->tiers->end_step(now_seconds());
}

bool Engine::has_work() const { return !state_->requests.empty(); }
EngineStats Engine::stats() const { return state_->stats(); }
bool Engine::extend_page_map(PageMap& map, int32_t& next_page, int32_t count) const {
  const State& s = *state_;
  if (next_page == 0)
    map = {.num_pages = s.kv.num_pages(),
           .page_size = s.kv.page_size(),
           .page_bytes = s.kv.page_bytes(),
           .first_step = s.kv.num_steps(),
           .last_step = 0,
           .fragmentation = {},
           .compaction = {},
           .tiers = {},
           .spans = {}};
  if (!tinyserve::extend_page_map(map, next_page, count, s.kv.pool())) return false;
  map.last_step = s.kv.num_steps();
  map.fragmentation = s.kv.fragmentation();
  map.compaction = s.kv.compaction_stats();
  if (s.tiers) map.tiers = s.tiers->stats();
  return true;
}

void Engine::check_invariants() const {
  state_->scheduler.check_invariants();
  if (state_->tiers) state_->tiers->check_invariants();
}

}  // namespace tinyserve
