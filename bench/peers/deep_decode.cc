// Decode time per token of llama.cpp at a deep context, without paying for its prefill: the K/V rows of a real prefill
// of 512 tokens are repeated, with the right positions, up to the wanted depth through llama_state_seq_set_data. Time
// does not depend on the values, so this is what decoding costs after a real prefill; `tinyserve bench latency
// --fake-kv` does the same.
//
// usage: deep_decode MODEL.gguf THREADS TOKENS REPETITIONS DEPTH[,DEPTH...]      one JSON line per depth
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"

namespace {

constexpr int kPrompt = 512;
constexpr int kWarmup = 2;  // tokens not counted

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "deep_decode: %s\n", what);
  std::exit(1);
}

/// Reads the state of one sequence piece by piece while writing another.
class StateRewriter {
 public:
  explicit StateRewriter(const std::vector<uint8_t>& from) : from_(from) {}

  uint32_t read_u32() {
    uint32_t v;
    std::memcpy(&v, take(4), 4);
    return v;
  }
  const uint8_t* take(size_t n) {
    if (at_ + n > from_.size()) fail("the state of a sequence is shorter than expected; another version of llama.cpp?");
    at_ += n;
    return from_.data() + at_ - n;
  }
  void put(const void* data, size_t n) {
    const auto* p = static_cast<const uint8_t*>(data);
    out.insert(out.end(), p, p + n);
  }
  bool at_end() const { return at_ == from_.size(); }
  std::vector<uint8_t> out;

 private:
  const std::vector<uint8_t>& from_;
  size_t at_ = 0;
};

/// The state `base` of kPrompt tokens, repeated to `depth` tokens. Layout (llama_kv_cache::state_write): magic and
/// sequence id; number of streams; number of cells; per cell position, number of sequences, sequence; whether V is
/// transposed; number of layers; then for each layer K, and for each layer V: type, row size, rows.
std::vector<uint8_t> repeat_state(const std::vector<uint8_t>& base, int depth) {
  StateRewriter s(base);
  s.put(s.take(8), 8);
  const uint32_t streams = s.read_u32(), cells = s.read_u32();
  if (streams != 1 || cells != kPrompt) fail("unexpected layout of the state: streams or cells");
  const auto count = static_cast<uint32_t>(depth);
  s.put(&streams, 4);
  s.put(&count, 4);
  s.take(12 * kPrompt);
  for (int i = 0; i < depth; ++i) {
    const int32_t cell[3] = {i, 1, 0};
    s.put(cell, sizeof cell);
  }
  const uint32_t v_transposed = s.read_u32(), layers = s.read_u32();
  if (v_transposed) fail("unexpected layout of the state: V is transposed");
  s.put(&v_transposed, 4);
  s.put(&layers, 4);
  for (uint32_t tensor = 0; tensor < 2 * layers; ++tensor) {
    const uint8_t* head = s.take(12);
    uint64_t row = 0;
    std::memcpy(&row, head + 4, 8);
    s.put(head, 12);
    const uint8_t* rows = s.take(row * kPrompt);
    for (int i = 0; i < depth; i += kPrompt) s.put(rows, row * static_cast<size_t>(std::min(kPrompt, depth - i)));
  }
  if (!s.at_end()) fail("unexpected layout of the state: something follows");
  return std::move(s.out);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) fail("usage: deep_decode MODEL.gguf THREADS TOKENS REPETITIONS DEPTH[,DEPTH...]");
  const int threads = std::atoi(argv[2]), tokens = std::atoi(argv[3]), repetitions = std::atoi(argv[4]);
  std::vector<int> depths;
  for (char* p = std::strtok(argv[5], ","); p; p = std::strtok(nullptr, ",")) depths.push_back(std::atoi(p));
  const int deepest = *std::max_element(depths.begin(), depths.end());

  llama_log_set([](ggml_log_level level, const char* text, void*) {
    if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
  }, nullptr);
  ggml_backend_load_all();
  llama_backend_init();
  llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (!model) fail("the model cannot be loaded");
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(std::max(deepest, kPrompt) + tokens + 64);
  params.n_batch = params.n_ubatch = 512;
  params.n_threads = params.n_threads_batch = threads;
  params.n_seq_max = 1;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  params.type_k = params.type_v = GGML_TYPE_F16;
  llama_context* context = llama_init_from_model(model, params);
  if (!context) fail("no context");

  const int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
  std::vector<llama_token> prompt(kPrompt);
  for (llama_token& t : prompt) t = std::rand() % vocab;
  if (llama_decode(context, llama_batch_get_one(prompt.data(), kPrompt))) fail("prefill");
  llama_synchronize(context);
  std::vector<uint8_t> base(llama_state_seq_get_size(context, 0));
  llama_state_seq_get_data(context, base.data(), base.size(), 0);

  for (const int depth : depths) {
    const std::vector<uint8_t> state = depth > 0 ? repeat_state(base, depth) : std::vector<uint8_t>();
    std::vector<double> medians;
    for (int r = 0; r < repetitions; ++r) {
      llama_memory_clear(llama_get_memory(context), true);
      if (depth > 0 && !llama_state_seq_set_data(context, state.data(), state.size(), 0)) fail("the state was refused");
      std::vector<double> times;
      for (int i = 0; i < tokens + kWarmup; ++i) {
        llama_token token = std::rand() % vocab;
        const double start = now_s();
        if (llama_decode(context, llama_batch_get_one(&token, 1))) fail("decode");
        llama_synchronize(context);
        if (i >= kWarmup) times.push_back(now_s() - start);
      }
      std::sort(times.begin(), times.end());
      medians.push_back(times[times.size() / 2]);
    }
    std::sort(medians.begin(), medians.end());
    std::printf("{\"depth\": %d, \"ms_per_token\": %.4f, \"ms_per_token_median\": %.4f}\n", depth, medians[0] * 1e3,
                medians[medians.size() / 2] * 1e3);
    std::fflush(stdout);
  }
}
