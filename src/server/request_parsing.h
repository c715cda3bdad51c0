#pragma once
// From a parsed body to something the engine can run. Every field is checked here; errors are ApiError naming the
// field. These functions tokenise and render templates, so they run on worker threads.

#include <string>
#include <vector>

#include "base/json.h"
#include "engine/request.h"
#include "server/backend.h"
#include "server/config.h"

namespace tinyserve {

/// What a request is checked against.
struct ApiContext {
  const ServerConfig& config;
  const TextFront& text;
  int32_t max_context;  ///< prompt + answer, tokens
};

struct PromptInput {
  std::vector<int32_t> ids;
  std::string text;  ///< what echo gives back; empty unless asked for
};

/// A checked /v1/completions or /v1/chat/completions request.
struct GenerationPlan {
  bool chat = false;
  bool stream = false;
  bool include_usage = false;
  bool echo = false;                 ///< completions: the prompt comes back before the answer
  bool token_ids_as_text = false;    ///< logprobs name tokens "token_id:123"
  int32_t logprobs = -1;             ///< as asked for: -1 none
  int32_t prompt_logprobs = -1;      ///< as asked for in "prompt_logprobs"; echo + logprobs is apart
  std::string model;                 ///< name the answer carries
  std::vector<PromptInput> prompts;  ///< at least one
  SamplingParams sampling;           ///< of every prompt
  SelectionRequest selection;        ///< of every prompt
  std::string cache_salt;            ///< as asked for; cache_salt.h makes the engine's of it
};

GenerationPlan plan_completion(const OrderedJson& body, const ApiContext& context);
GenerationPlan plan_chat(const OrderedJson& body, const ApiContext& context);

/// /tokenize: {"prompt"} or {"messages"}; returns the answer's body.
std::string answer_tokenize(const OrderedJson& body, const ApiContext& context);
/// /detokenize: {"tokens"}; returns the answer's body.
std::string answer_detokenize(const OrderedJson& body, const ApiContext& context);

/// Which model the request means. 404 when it is not served.
std::string read_model(const OrderedJson& body, const ServerConfig& config);

}  // namespace tinyserve
