#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/mapped_file.h"
#include "cli/flags.h"
#include "cli/generation_session.h"
#include "cli/interrupt.h"
#include "cli/model_runtime.h"
#include "cli/prompt_input.h"

namespace tinyserve::cli {
namespace {

constexpr int kInterrupted = 130;

struct GenerateFlags {
  std::optional<std::string> prompt;
  std::string file;
  ModelFlags model;
  EngineConfig engine;
  SessionOptions session;
};

int run(GenerateFlags& f) {
  std::optional<std::string> prompt = read_prompt(f.prompt, f.file, isatty(STDIN_FILENO) == 1);
  if (!prompt && f.session.raw)
    throw InputError("--raw continues one text: give it as argument, with --file or on stdin");
  InterruptHandler interrupts;
  GenerationSession session(f.model, f.engine, f.session, interrupts);
  if (interrupts.take()) return kInterrupted;  // while the model was loading
  return prompt ? session.answer_once(*prompt) : session.chat();
}

}  // namespace

void add_generate(CLI::App& root, Action& action) {
  const auto f = std::make_shared<GenerateFlags>();
  f->engine.max_running = 1;
  CLI::App& app = add_command(root, "generate", "Answer one prompt, or chat when there is none and stdin is a terminal", action,
                              [f] { return run(*f); });
  FlagGroup input(app, "Prompt");
  input.text("prompt", f->prompt, "TEXT", "What to answer; without it --file, else stdin, else (on a terminal) a chat")
      .text("--file", f->file, "FILE", "Read the prompt from a file")
      .flag("--raw", f->session.raw, "Continue the text itself, without the chat template")
      .text("--system", f->session.system, "TEXT", "System message", "none")
      .text("--chat-template", f->session.chat_template, "FILE", "Jinja file instead of the model's own", "the model's")
      .toggle("--statistics", f->session.statistics, "A line about tokens and times on stderr after each answer");
  add_log_flag(input);
  FlagGroup sampling(app, "Sampling");
  SamplingFlags& s = f->session.sampling;
  sampling.number("--max-tokens", s.max_tokens, 1, 1 << 24, "Longest answer", "what the context leaves")
      .number("--min-tokens", s.min_tokens, 0, 1 << 24, "The answer does not end before that many")
      .decimal("--temperature", s.temperature, 0, 100, "0 is greedy", "generation_config.json's, else 1")
      .number("--top-k", s.top_k, 0, 1 << 30, "Only the k likeliest tokens; 0: all", "generation_config.json's, else 0")
      .decimal("--top-p", s.top_p, 0, 1, "Only the likeliest tokens that make up this share", "generation_config.json's, else 1")
      .decimal("--min-p", s.min_p, 0, 1, "Only tokens at least this share as likely as the likeliest", "generation_config.json's, else 0")
      .decimal("--repetition-penalty", s.repetition_penalty, 0, 100, "Divides the odds of tokens that appeared", "generation_config.json's, else 1")
      .decimal("--presence-penalty", s.presence_penalty, -2, 2, "Off the logits of tokens already generated")
      .decimal("--frequency-penalty", s.frequency_penalty, -2, 2, "The same for every time they were")
      .number("--seed", s.seed, "Same seed, same answer", "drawn anew")
      .texts("--stop", s.stop, "TEXT", "End the answer before this text")
      .flag("--ignore-eos", s.ignore_eos, "Go on past the end of text");
  FlagGroup model(app, "Model");
  add_model_flags(model, f->model);
  FlagGroup engine(app, "Engine");
  add_engine_flags(engine, f->engine);
}

}  // namespace tinyserve::cli
