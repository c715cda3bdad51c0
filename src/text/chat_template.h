#pragma once
// Chat templates: from the messages of a request to the text that the model was trained to continue. They are Jinja
// templates that come with the model; the interpreter in jinja/ renders them as transformers' apply_chat_template does.

#include <memory>
#include <string>

#include "base/json.h"

namespace tinyserve {

/// Parsed once, when the model is loaded; render() may be called from any number of threads.
class ChatTemplate {
 public:
  /// No template: render() throws an InputError that says so, and how to give one.
  ChatTemplate();
  /// `source`: the Jinja text (chat_template of tokenizer_config.json, or chat_template.jinja). The tokens are given to
  /// the template as bos_token and eos_token; an empty one is left undefined, as for a tokenizer without it.
  /// Throws InputError with line and reason when the template cannot be parsed.
  ChatTemplate(std::string source, std::string bos_token, std::string eos_token);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  /// Reads the template from a file (--chat-template). Throws InputError naming the file.
  static ChatTemplate from_file(const std::string& path, std::string bos_token, std::string eos_token);

  bool has_template() const;
  const std::string& source() const;
  /// Whether the template walks over content given as a list of parts. Found by rendering such a message: it takes
  /// lists if that works and the text of the part comes out without the names of its fields.
  bool takes_content_lists() const;

  /// The prompt, special tokens written as text: tokenise it without adding further special tokens.
  ///
  /// messages: an array of objects with a role. `content` is a string, null or absent (assistant turns that only call
  /// tools), or a list of parts {"type": "text", "text": ...}. Lists are handed on to templates that walk over them;
  /// for others the texts are joined by line breaks, and a string becomes nothing else. Parts that are not text are an
  /// InputError. `tool_calls[].function.arguments`, which the API carries as a JSON text, is given to the template as
  /// the value it stands for, since templates print it with |tojson; a text that is not JSON is an InputError.
  /// tools: an array of tool definitions, or null for none.
  /// extra_kwargs: an object of further variables (chat_template_kwargs, e.g. enable_thinking), or null; it may not set
  /// messages, tools and add_generation_prompt.
  /// Throws InputError: malformed messages, what the template itself raises, steps or output past the limits.
  std::string render(const OrderedJson& messages, const OrderedJson* tools, bool add_generation_prompt,
                     const OrderedJson* extra_kwargs) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace tinyserve
