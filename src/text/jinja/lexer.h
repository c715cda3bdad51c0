#pragma once
// Splits a template into text, expression and statement tokens, with jinja2's rules for white space under
// trim_blocks=True and lstrip_blocks=True, which is how transformers sets its environment up.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tinyserve::jinja {

enum class TokenType : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type;
  int line;
  std::string text;     ///< the name, operator, unescaped string or data
  int64_t integer = 0;  ///< kInteger
  double number = 0;    ///< kFloat
};

/// The tokens of `source`, kEnd last. `name` stands in front of error messages. Throws LocatedError.
std::vector<Token> tokenize(std::string_view source, const std::string& name);

}  // namespace tinyserve::jinja
