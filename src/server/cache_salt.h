#pragma once
// Who may find whose prompts in the prefix cache. A hit is faster than a miss, so whoever can hit a prompt's pages can
// learn by timing that somebody sent it (CVE-2025-46570). Requests share pages when their salts are equal, and only
// then.

#include <string>
#include <string_view>

namespace tinyserve {

/// The engine's salt (Request::cache_salt) of a request with this "cache_salt" from the holder of this API key; each
/// may be empty. Different pairs have different salts: no tenant can write one that is another's.
std::string cache_salt(std::string_view api_key, std::string_view of_request);

}  // namespace tinyserve
