#pragma once
// What the protocol layer needs from below, as interfaces, so that it can be tested without a model. model_backend.h
// fills them with the engine, the tokenizer and the chat template.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "engine/observer.h"
#include "engine/request.h"

namespace tinyserve {

struct PageMap;

/// The engine's front. All members may be called from any thread.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual int32_t max_context() const = 0;
  /// Throws InputError or QueueFull before anything is queued. The sink runs on the engine's thread.
  virtual uint64_t submit(Request request, OutputSink sink) = 0;
  /// Ends a request before the next step; unknown ids are ignored.
  virtual void cancel(uint64_t id) = 0;
  virtual EngineStats stats() const = 0;
  /// See EngineThread::page_map. Blocks.
  virtual std::shared_ptr<const PageMap> page_map(double timeout_s) = 0;
};

/// Text to tokens and back. All members may be called from any thread.
class TextFront {
 public:
  virtual ~TextFront() = default;
  virtual int32_t vocab_size() const = 0;
  /// Bytes of the longest token: a text of b bytes has at least b / this many tokens.
  virtual int32_t longest_token_bytes() const = 0;
  /// Special tokens written out in `text` become those tokens. `add_special`: as the model's post-processor does (BOS).
  virtual std::vector<int32_t> encode(std::string_view text, bool add_special) const = 0;
  /// Valid UTF-8.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special) const = 0;
  /// The bytes one token stands for, special or not; they need not be whole characters.
  virtual std::string token_bytes(int32_t id) const = 0;
  /// The prompt of a conversation. `tools` and `extra` (further variables, an object) may be null. Throws InputError:
  /// no template, a template that refuses the messages, a limit reached.
  virtual std::string render_chat(const OrderedJson& messages, const OrderedJson* tools, bool add_generation_prompt,
                                  const OrderedJson* extra) const = 0;
};

}  // namespace tinyserve
