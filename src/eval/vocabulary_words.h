#pragma once
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace tinyserve::eval {

/// Words that are one token inside a sentence: a space and at least four letters a-z. Without the space, sorted, each once.
std::vector<std::string> vocabulary_words(const Tokenizer& tokenizer);

}  // namespace tinyserve::eval
