#include "cli/text_parts.h"

#include <utility>

namespace tinyserve::cli {

TextParts load_text_parts(const std::filesystem::path& folder, const std::string& template_file) {
  TextParts parts;
  parts.tokenizer = Tokenizer::load(folder);
  const Tokenizer& t = *parts.tokenizer;
  if (!template_file.empty()) {
    parts.chat_template = ChatTemplate::from_file(template_file, t.bos_token(), t.eos_token());
  } else if (!t.chat_template().empty()) {
    parts.chat_template = ChatTemplate(t.chat_template(), t.bos_token(), t.eos_token());
  }
  return parts;
}

}  // namespace tinyserve::cli
