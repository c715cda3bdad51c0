#pragma once
#include <stdexcept>
#include <string>

namespace tinyserve {

/// Ends a request with an error in OpenAI's shape: {"error": {"message", "type", "param", "code"}}.
class ApiError : public std::runtime_error {
 public:
  /// `param` names the field at fault ("messages[2].content"), `code` the kind of trouble; empty ones become null.
  ApiError(int status, const std::string& message, std::string param = {}, std::string code = {},
           std::string type = "invalid_request_error")
      : std::runtime_error(message),
        status(status),
        param(std::move(param)),
        code(std::move(code)),
        type(std::move(type)) {}

  int status;  ///< of HTTP
  std::string param;
  std::string code;
  std::string type;
};

/// A field that cannot be used: 400.
inline ApiError bad_field(std::string param, const std::string& message) {
  return ApiError(400, message, std::move(param));
}

}  // namespace tinyserve
