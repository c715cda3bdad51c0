#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace tinyserve::eval {

/// Running text that models are measured on.
struct EvalText {
  std::vector<int32_t> tokens;  ///< of all files, one after another, without special tokens
  std::optional<int32_t> bos;   ///< what the tokenizer puts before every text, if anything
};

/// Reads and tokenises the files; of a folder those in it that end in .txt or .md, by name. Throws InputError: a file that
/// cannot be read, a folder without such files, or no text in any.
EvalText load_eval_text(const Tokenizer& tokenizer, std::span<const std::string> files);

}  // namespace tinyserve::eval
