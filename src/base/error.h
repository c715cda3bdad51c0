#pragma once
// How the project reports trouble. There are two ways and no third: outside input (flags, files, HTTP bodies) that
// cannot be used throws InputError, whose what() is a message for a person; a broken invariant of our own stops the
// program through TS_CHECK (check.h).

#include <stdexcept>
#include <string>

namespace tinyserve {

/// Outside input that cannot be used. what() names the thing at fault (file, tensor, field) and what to do.
/// The CLI prints it and exits with 1; the server turns it into a 4xx in OpenAI's error shape.
class InputError : public std::runtime_error {
 public:
  explicit InputError(const std::string& message) : std::runtime_error(message) {}
};

}  // namespace tinyserve
