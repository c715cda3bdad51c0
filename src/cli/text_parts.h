#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tinyserve::cli {

/// Tokenizer and chat template of a model folder.
struct TextParts {
  std::unique_ptr<Tokenizer> tokenizer;
  ChatTemplate chat_template;
};

/// `template_file`, when not empty, replaces the folder's own chat template. Throws InputError naming the file at fault.
TextParts load_text_parts(const std::filesystem::path& folder, const std::string& template_file = {});

}  // namespace tinyserve::cli
