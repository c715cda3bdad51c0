#pragma once
#include <string>

namespace tinyserve {

struct PageMap;

/// The answer to GET /debug/kv: see docs/kv-memory.md. At most some 30 bytes a page, when no two neighbours are alike.
std::string page_map_body(const PageMap& map);

}  // namespace tinyserve
