#include "cli/generation_session.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "cli/answer.h"
#include "cli/chat.h"
#include "cli/default_sampling.h"
#include "cli/interrupt.h"
#include "cli/line_reader.h"
#include "cli/text_parts.h"
#include "cli/units.h"
#include "cli/selection_setup.h"
#include "engine/engine_thread.h"

namespace tinyserve::cli {
namespace {

constexpr int kInterrupted = 130;

SamplingParams make_sampling(const SamplingFlags& flags, const DefaultSampling& defaults) {
  SamplingParams s;
  s.temperature = flags.temperature.value_or(defaults.temperature.value_or(s.temperature));
  s.top_p = flags.top_p.value_or(defaults.top_p.value_or(s.top_p));
  s.top_k = flags.top_k.value_or(defaults.top_k.value_or(s.top_k));
  s.min_p = flags.min_p.value_or(defaults.min_p.value_or(s.min_p));
  s.repetition_penalty = flags.repetition_penalty.value_or(defaults.repetition_penalty.value_or(s.repetition_penalty));
  s.max_tokens = flags.max_tokens;
  s.min_tokens = flags.min_tokens;
  s.presence_penalty = flags.presence_penalty;
  s.frequency_penalty = flags.frequency_penalty;
  s.seed = flags.seed;
  s.stop = flags.stop;
  s.ignore_eos = flags.ignore_eos;
  return s;
}

/// Writes to stdout at once. A reader that went away ends the program through SIGPIPE, silently, as filters do.
void write_out(std::string_view text, bool terminal) {
  const std::string safe = terminal ? terminal_safe(text) : std::string(text);
  if (std::fwrite(safe.data(), 1, safe.size(), stdout) != safe.size() || std::fflush(stdout) != 0)
    throw InputError(fmt::format("writing the answer: {}", std::strerror(errno)));
}

std::unique_ptr<EngineThread> start_engine(ModelRuntime& runtime, const Tokenizer& tokenizer, const EngineConfig& config) {
  BlockInterrupts block;  // Ctrl-C belongs to the thread that reads the terminal
  return std::make_unique<EngineThread>(std::make_unique<Engine>(runtime.model(), runtime.ops(), tokenizer, engine_config_for(runtime, config), nullptr));
}

}  // namespace

struct GenerationSession::State {
  State(const ModelFlags& model, const EngineConfig& config, const SessionOptions& o, InterruptHandler& i)
      : options(o), interrupts(i), runtime(with_blocked_interrupts(model)), text(load_text_parts(runtime->folder(), o.chat_template)),
        sampling(make_sampling(o.sampling, read_default_sampling(runtime->folder()))),
        engine(start_engine(*runtime, *text.tokenizer, config)), terminal(isatty(STDOUT_FILENO) == 1) {}

  static std::unique_ptr<ModelRuntime> with_blocked_interrupts(const ModelFlags& model) {
    BlockInterrupts block;
    return std::make_unique<ModelRuntime>(model);
  }

  Answer answer(std::vector<int32_t> prompt) {
    if (prompt.empty()) throw InputError("the prompt has no tokens");
    const auto limit = static_cast<size_t>(engine->max_context());
    if (prompt.size() >= limit)
      throw InputError(fmt::format("the prompt has {} tokens; at most {} fit, with room for one token of answer (--max-context, --kv-memory)",
                                   prompt.size(), limit - 1));
    const Answer a = stream_answer(*engine, Request{std::move(prompt), sampling}, interrupts,
                                   [this](std::string_view piece) { write_out(piece, terminal); });
    write_out("\n", false);
    if (!options.statistics) return a;
    for (const std::string& line : {describe(a), describe_selection(a.selection)})
      if (!line.empty())
        fmt::print(stderr, "{}[{}]{}\n", isatty(STDERR_FILENO) ? "\033[2m" : "", line,
                   isatty(STDERR_FILENO) ? "\033[0m" : "");
    return a;
  }

  Answer answer_chat(const OrderedJson& messages) {
    const std::string prompt = text.chat_template.render(messages, nullptr, true, nullptr);
    return answer(text.tokenizer->encode(prompt, false));
  }

  SessionOptions options;
  InterruptHandler& interrupts;
  std::unique_ptr<ModelRuntime> runtime;
  TextParts text;
  SamplingParams sampling;
  std::unique_ptr<EngineThread> engine;
  bool terminal;
};

GenerationSession::GenerationSession(const ModelFlags& model, const EngineConfig& engine, const SessionOptions& options,
                                     InterruptHandler& interrupts)
    : state_(std::make_unique<State>(model, engine, options, interrupts)) {}
GenerationSession::~GenerationSession() = default;

int GenerationSession::answer_once(const std::string& prompt) {
  State& s = *state_;
  Answer a;
  if (s.options.raw) {
    a = s.answer(s.text.tokenizer->encode(prompt, true));
  } else {
    if (!s.text.chat_template.has_template())
      throw InputError(fmt::format("{}: the model has no chat template; continue the text itself with --raw, or give a template with "
                                   "--chat-template", s.runtime->folder().string()));
    OrderedJson messages = OrderedJson::array();
    if (!s.options.system.empty()) messages.push_back({{"role", "system"}, {"content", s.options.system}});
    messages.push_back({{"role", "user"}, {"content", prompt}});
    a = s.answer_chat(messages);
  }
  return a.interrupted ? kInterrupted : 0;
}

int GenerationSession::chat() {
  State& s = *state_;
  if (!s.text.chat_template.has_template())
    throw InputError(fmt::format("{}: the model has no chat template; give one with --chat-template, or a prompt to continue with --raw",
                                 s.runtime->folder().string()));
  fmt::print("{}, {} parameters, {}. Ctrl-C stops an answer, Ctrl-D leaves, /help lists commands.\n",
             s.runtime->folder().filename().string(), format_count(s.runtime->model().config().num_parameters), s.runtime->precision());
  const auto reader = make_terminal_reader("> ");
  return run_chat(*reader, s.options.system, [&](const OrderedJson& messages) { return s.answer_chat(messages); },
                  [](std::string_view text) { write_out(text, false); });
}

}  // namespace tinyserve::cli
