#include "server/cache_salt.h"

#include <fmt/format.h>

namespace tinyserve {

std::string cache_salt(std::string_view api_key, std::string_view of_request) {
  if (api_key.empty() && of_request.empty()) return {};                // one chain for all, as without salts
  return fmt::format("{}:{}{}", api_key.size(), api_key, of_request);  // the length says where the key ends
}

}  // namespace tinyserve
