#pragma once
// The engine, the tokenizer and the chat template as the server wants them.

#include "engine/engine_thread.h"
#include "server/backend.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tinyserve {

class ModelBackend : public Backend {
 public:
  explicit ModelBackend(EngineThread& engine) : engine_(engine) {}
  int32_t max_context() const override { return engine_.max_context(); }
  uint64_t submit(Request request, OutputSink sink) override {
    return engine_.submit(std::move(request), std::move(sink));
  }
  void cancel(uint64_t id) override { engine_.cancel(id); }
  EngineStats stats() const override { return engine_.stats(); }
  std::shared_ptr<const PageMap> page_map(double timeout_s) override { return engine_.page_map(timeout_s); }

 private:
  EngineThread& engine_;
};

class ModelText : public TextFront {
 public:
  /// Both outlive this. Without a template, conversations are refused with a message that says so.
  ModelText(const Tokenizer& tokenizer, const ChatTemplate* chat_template);

  int32_t vocab_size() const override { return tokenizer_.vocab_size(); }
  int32_t longest_token_bytes() const override { return longest_token_bytes_; }
  std::vector<int32_t> encode(std::string_view text, bool add_special) const override {
    return tokenizer_.encode(text, add_special);
  }
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    return tokenizer_.decode(ids, skip_special);
  }
  std::string token_bytes(int32_t id) const override { return tokenizer_.token_bytes(id); }
  std::string render_chat(const OrderedJson& messages, const OrderedJson* tools, bool add_generation_prompt,
                          const OrderedJson* extra) const override {
    return chat_template_->render(messages, tools, add_generation_prompt, extra);
  }

 private:
  const Tokenizer& tokenizer_;
  const ChatTemplate no_template_;
  const ChatTemplate* const chat_template_;
  int32_t longest_token_bytes_ = 1;
};

}  // namespace tinyserve
