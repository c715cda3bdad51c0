#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/model_runtime.h"
#include "engine/request.h"

namespace tinyserve::cli {

class InterruptHandler;

/// Sampling as flags give it; what is absent comes from the model's generation_config.json.
struct SamplingFlags {
  std::optional<int32_t> max_tokens, top_k;
  int32_t min_tokens = 0;
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  float presence_penalty = 0, frequency_penalty = 0;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;
};

struct SessionOptions {
  bool raw = false;           ///< no chat template
  std::string system;         ///< system message; empty: none
  std::string chat_template;  ///< file; empty: the model's
  bool statistics = true;     ///< a line on stderr after each answer
  SamplingFlags sampling;
};

/// A model in this process and one person talking to it.
class GenerationSession {
 public:
  GenerationSession(const ModelFlags& model, const EngineConfig& engine, const SessionOptions& options,
                    InterruptHandler& interrupts);
  ~GenerationSession();

  /// Writes the answer to stdout as it comes. Returns the exit code: 130 when Ctrl-C ended it.
  int answer_once(const std::string& prompt);
  /// A conversation on the terminal. Returns the exit code.
  int chat();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tinyserve::cli
