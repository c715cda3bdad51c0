#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace tinyserve::cli {

/// "512", "2k", "1k,8k" or "1k..32k" (each twice the one before, up to the last): numbers of tokens, k being 1024. Throws
/// InputError (without the text itself) for anything else and for numbers outside [low, high].
std::vector<int32_t> parse_contexts(const std::string& text, int32_t low, int32_t high);

}  // namespace tinyserve::cli
