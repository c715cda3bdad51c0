#pragma once
// Errors of templates. What a caller sees is always an InputError that says "chat template, line N: ...".

#include <string>

#include "base/error.h"

namespace tinyserve::jinja {

/// An error without a place; the parser and the interpreter add the line.
class TemplateError : public InputError {
 public:
  explicit TemplateError(const std::string& message) : InputError(message) {}
};

/// The finished error, with name and line in front.
class LocatedError : public InputError {
 public:
  LocatedError(const std::string& name, int line, const std::string& message)
      : InputError(name + ", line " + std::to_string(line) + ": " + message), line_(line) {}
  int line() const { return line_; }

 private:
  int line_;
};

}  // namespace tinyserve::jinja
